"""Every way in which a balance cannot be read, through the command line: the right exit code, inside the deadline, in a line.

No traceback and no key in any output: the `creditguard` fixture looks for both in all of it.
"""

from __future__ import annotations

import socket
import ssl

import pytest
import trustme

from creditguard.sandbox import Gateway

FAULTS = {
    "401": (77, {"status": 401}),
    "403": (77, {"status": 403}),
    "404": (69, {"status": 404}),
    "429": (69, {"status": 429}),
    "429 with a long wait": (69, {"status": 429, "headers": {"Retry-After": "3600"}}),
    "500": (69, {"status": 500}),
    "503": (69, {"status": 503}),
    "200 without success": (65, {"success": False, "code": "odd"}),
    "HTML": (65, {"body": "<html><body>Welcome to the hotel</body></html>", "content_type": "text/html"}),
    "truncated JSON": (65, {"body": '{"success": true, "data": {"api_cre'}),
    "empty": (65, {"body": ""}),
    "a list": (65, {"body": "[120]"}),
    "gzip bomb": (65, {"pad": 50_000_000, "gzip": True}),
    "1 MiB": (65, {"pad": 1_048_576}),
    "missing": (65, {"data": {"credits": 120}}),
    "null": (65, {"api_credits": None}),
    "true": (65, {"api_credits": True}),
    "fraction": (65, {"api_credits": 1.5}),
    "text": (65, {"api_credits": "120"}),
    "NaN": (65, {"api_credits": float("nan")}),
    "object": (65, {"api_credits": {}}),
    "reset": (69, {"reset": True}),
    "closed": (69, {"close": True}),
    "drip": (69, {"drip": 0.2}),
    "drip of headers": (69, {"drip": 0.2, "drip_headers": True}),
    "slow": (69, {"delay": 30}),
    "redirect": ({65, 69}, {"status": 302, "location": "https://elsewhere.example/?secret"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_in_its_code_inside_the_deadline(gateway, creditguard, fault):
    code, spec = FAULTS[fault]
    gateway.fault(**spec)
    done = creditguard("check", "--budget", 5, env={"CREDITGUARD_TIMEOUT": "1"})
    assert done.code == code if isinstance(code, int) else done.code in code, done.stderr
    assert done.seconds < 1 + 3  # the deadline, and a cold start on a busy machine
    assert done.names == ["unreadable"]
    assert len(done.messages) == 1
    assert "secret" not in done.stderr
    gateway.clear_faults()


def test_403_names_both_causes(gateway, creditguard):
    gateway.fault(status=403)
    message = creditguard("balance").stderr
    assert "access" in message
    assert "host" in message
    assert gateway.requests["/api/v1/account/balances"] == 1


def test_429_says_when_to_come_back(gateway, creditguard):
    gateway.fault(status=429, headers={"Retry-After": "3600"})
    done = creditguard("check", "--budget", 5)
    assert "3600" in done.stderr
    assert done.events[0]["retry_after"] == 3600
    assert done.seconds < 5


def test_an_error_quotes_the_request_id(gateway, creditguard):
    gateway.fault(api_credits=None)
    done = creditguard("balance")
    assert (done.code, done.stdout) == (65, "")
    assert "req_" in done.stderr
    assert "api_credits" in done.stderr


def test_connection_refused(gateway, creditguard):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = creditguard("balance", env={"CREDITGUARD_BASE_URL": f"http://127.0.0.1:{port}", "CREDITGUARD_TIMEOUT": "1"})
    assert done.code == 69
    assert "refused" in done.stderr


def test_a_name_that_does_not_resolve(gateway, creditguard):
    done = creditguard("balance", env={"CREDITGUARD_BASE_URL": "https://nowhere.invalid", "CREDITGUARD_TIMEOUT": "2"})
    assert done.code == 69
    assert "nowhere.invalid" in done.stderr
    assert done.seconds < 2 + 3


def test_tls_with_an_unknown_ca_and_with_a_known_one(creditguard, tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Gateway(tls=context) as gateway:
        environment = {"CREDITGUARD_BASE_URL": gateway.url, "APIMALL_API_KEY": gateway.key}
        done = creditguard("balance", env=environment)
        assert done.code == 69
        assert "certificate" in done.stderr
        done = creditguard("balance", env={**environment, "SSL_CERT_FILE": str(tmp_path / "ca.pem")})
        assert (done.code, done.stdout) == (0, "120\n")
