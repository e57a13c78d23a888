"""Proxies and trusted certificates, as the user's environment names them: docs/settings.md has the rules."""

from __future__ import annotations

import shutil
import ssl
import subprocess

import httpx
import pytest

from creditguard.sources.environment import EnvironmentUnusableError, proxy_for, tls_context

GATEWAY = "https://gateway.example"


@pytest.fixture
def via(monkeypatch):
    def proxy(variables, url=GATEWAY):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        found = proxy_for(httpx.URL(url))
        return found and str(found.url)

    return proxy


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "proxy.example"}, "http://proxy.example"),
        ({"https_proxy": "https://proxy.example"}, "https://proxy.example"),
        ({"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower"}, "http://lower"),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://https:2"}, "http://https:2"),
        ({"all_proxy": "socks5://[::1]"}, "socks5://[::1]"),
        ({"ALL_PROXY": "socks5h://proxy:9"}, "socks5h://proxy:9"),
        ({"HTTP_PROXY": "http://proxy:1"}, None),
        ({"TRAVIS_APT_PROXY": "http://proxy:1"}, None),
    ],
)
def test_the_proxy_of_an_https_gateway(via, variables, proxy):
    assert via(variables) == proxy


def test_name_and_password_go_to_the_proxy_and_into_no_repr(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://a%40b:hunter2%3A@proxy:1")
    proxy = proxy_for(httpx.URL(GATEWAY))
    assert proxy.raw_auth == (b"a@b", b"hunter2:")
    assert "hunter2" not in repr(proxy)


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("*", GATEWAY, True),
        ("other.example, gateway.example", GATEWAY, True),
        ("GATEWAY.example", GATEWAY, True),
        (".example", GATEWAY, True),
        ("example", GATEWAY, True),
        ("way.example", GATEWAY, False),
        ("gateway.example:443", GATEWAY, True),
        ("gateway.example:8443", GATEWAY, False),
        ("gateway.example.com", GATEWAY, False),
        ("", GATEWAY, False),
        (", ,", GATEWAY, False),
        ("127.0.0.1", "https://127.0.0.1:8443", True),
        ("::1", "https://[::1]:8443", True),
        ("[::1]", "https://[::1]:8443", True),
        ("[::1]:8443", "https://[::1]:8443", True),
        ("localhost,127.0.0.1,::1", "https://localhost:8443", True),
        ("*.example", GATEWAY, False),
        ("127.0.0.0/8", "https://127.9.9.9:8443", False),
    ],
)
def test_no_proxy(via, no_proxy, url, direct):
    assert (via({"ALL_PROXY": "http://proxy:1", "NO_PROXY": no_proxy}, url) is None) == direct


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({"HTTP_PROXY": "http://localhost:1"}, "http://localhost:1"),
        ({"HTTP_PROXY": "http://[::1]:1"}, "http://[::1]:1"),
        ({"HTTP_PROXY": "http://proxy.example:1"}, None),
        ({"HTTP_PROXY": "http://127.0.0.1.example:1"}, None),
        ({"ALL_PROXY": "socks5://proxy.example:1"}, None),
        ({"HTTP_PROXY": "http://localhost:1", "REQUEST_METHOD": "GET"}, None),  # a CGI visitor's header
        ({"http_proxy": "http://localhost:1", "REQUEST_METHOD": "GET"}, "http://localhost:1"),
    ],
)
def test_a_request_in_the_clear_is_handed_only_to_a_proxy_on_this_machine(via, variables, proxy):
    assert via(variables, "http://127.0.0.1:8080") == proxy


@pytest.mark.parametrize(
    "value", ["http://", "ftp://proxy", "http://u:hunter2@proxy:x", "http://u:hunter2@[::1", "://hunter2"]
)
def test_a_proxy_that_cannot_be_used_is_not_quoted(via, value):
    with pytest.raises(EnvironmentUnusableError, match=r"^HTTPS_PROXY is not") as caught:
        via({"HTTPS_PROXY": value})
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def bundle(tmp_path, authority):
    path = tmp_path / "own.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def test_ssl_cert_file_replaces_what_the_system_trusts(monkeypatch, bundle):
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    context = tls_context()
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_an_ssl_cert_file_that_cannot_be_used_is_said_so(monkeypatch, tmp_path, content):
    path = tmp_path / "own.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(EnvironmentUnusableError, match="SSL_CERT_FILE"):
        tls_context()


@pytest.mark.parametrize("names", [["ca-certificates.crt"], ["ca-certificates.crt", "0a1b2c3d.0"], None])
def test_the_systems_directory_serves_if_it_is_hashed_and_httpxs_bundle_if_not(monkeypatch, tmp_path, names):
    directory = None
    if names is not None:
        directory = str(tmp_path)
        for name in names:
            (tmp_path / name).write_text("")
    paths = ssl.get_default_verify_paths()._replace(capath=directory)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert bool(context.get_ca_certs()) == (names is None or len(names) == 1)  # of a directory, nothing is loaded yet


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to hash a name")
def test_ssl_cert_dir_names_a_hashed_directory(monkeypatch, bundle, make_server, authority):
    command = [shutil.which("openssl"), "x509", "-hash", "-noout", "-in", str(bundle)]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    bundle.rename(bundle.parent / f"{name}.0")
    monkeypatch.setenv("SSL_CERT_DIR", str(bundle.parent))
    server = make_server(b"HTTP/1.1 204 No\r\n\r\n", tls="localhost")
    with httpx.HTTPTransport(verify=tls_context()) as transport:
        request = httpx.Request("GET", f"https://localhost:{server.port}")
        assert transport.handle_request(request).status_code == 204
