"""Proxies and trusted certificates, as the user's environment names them."""

from __future__ import annotations

import ssl

import pytest

from creditguard.sources.environment import EnvironmentUnusableError, Proxy, proxy_for, tls_context


def via(variables, url="https://gateway.example:443"):
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    return proxy_for(scheme, host.strip("[]"), int(port), variables)


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, Proxy("http", "proxy.example", 3128)),
        ({"HTTPS_PROXY": "proxy.example:3128"}, Proxy("http", "proxy.example", 3128)),
        ({"HTTPS_PROXY": "proxy.example"}, Proxy("http", "proxy.example", 80)),
        ({"https_proxy": "https://proxy.example/"}, Proxy("https", "proxy.example", 443)),
        ({"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower"}, Proxy("http", "lower", 80)),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://https:2"}, Proxy("http", "https", 2)),
        ({"all_proxy": "socks5://[::1]"}, Proxy("socks5", "::1", 1080)),
        ({"ALL_PROXY": "socks5h://proxy:9"}, Proxy("socks5h", "proxy", 9)),
        ({"HTTPS_PROXY": "http://a%40b:p%3Aw@proxy:1"}, Proxy("http", "proxy", 1, (b"a@b", b"p:w"))),
        ({"HTTP_PROXY": "http://proxy:1"}, None),
        ({"TRAVIS_APT_PROXY": "http://proxy:1"}, None),
    ],
)
def test_the_proxy_of_an_https_gateway(variables, proxy):
    assert via(variables) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("*", "https://gateway.example:443", True),
        ("other.example, gateway.example", "https://gateway.example:443", True),
        ("GATEWAY.example", "https://gateway.example:443", True),
        (".example", "https://gateway.example:443", True),
        ("*.example", "https://gateway.example:443", True),
        ("example", "https://gateway.example:443", True),
        ("way.example", "https://gateway.example:443", False),
        ("gateway.example:443", "https://gateway.example:443", True),
        ("gateway.example:8443", "https://gateway.example:443", False),
        ("gateway.example.com", "https://gateway.example:443", False),
        ("", "https://gateway.example:443", False),
        (", ,", "https://gateway.example:443", False),
        ("127.0.0.1", "https://127.0.0.1:8443", True),
        ("127.0.0.0/8", "https://127.9.9.9:8443", True),
        ("10.0.0.0/8", "https://127.9.9.9:8443", False),
        ("nonsense/8", "https://127.9.9.9:8443", False),
        ("::1", "https://[::1]:8443", True),
        ("[::1]", "https://[::1]:8443", True),
        ("[::1]:8443", "https://[::1]:8443", True),
        ("localhost,127.0.0.1,::1", "https://localhost:8443", True),
    ],
)
def test_no_proxy(no_proxy, url, direct):
    assert (via({"ALL_PROXY": "http://proxy:1", "NO_PROXY": no_proxy}, url) is None) == direct


def test_a_request_in_the_clear_is_handed_only_to_a_proxy_on_this_machine():
    loopback = "http://127.0.0.1:8080"
    assert via({"HTTP_PROXY": "http://localhost:1"}, loopback) == Proxy("http", "localhost", 1)
    assert via({"HTTP_PROXY": "http://proxy.example:1"}, loopback) is None
    assert via({"ALL_PROXY": "socks5://proxy.example:1"}, loopback) is None
    assert via({"HTTP_PROXY": "http://localhost:1", "REQUEST_METHOD": "GET"}, loopback) is None
    assert via({"http_proxy": "http://localhost:1", "REQUEST_METHOD": "GET"}, loopback) is not None


@pytest.mark.parametrize(
    "value", ["http://", "ftp://proxy", "http://u:hunter2@proxy:x", "http://u:hunter2@[::1", "://hunter2"]
)
def test_a_proxy_that_cannot_be_used_is_not_quoted(value):
    with pytest.raises(EnvironmentUnusableError, match=r"^HTTPS_PROXY is not") as caught:
        via({"HTTPS_PROXY": value})
    assert "hunter2" not in str(caught.value)


def test_the_repr_of_a_proxy_leaves_out_its_password():
    assert "hunter2" not in repr(via({"HTTPS_PROXY": "http://u:hunter2@proxy:1"}))


@pytest.fixture
def bundle(tmp_path, authority):
    path = tmp_path / "own.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def test_ssl_cert_file_replaces_what_the_system_trusts(bundle):
    context = tls_context({"SSL_CERT_FILE": str(bundle)})
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_an_ssl_cert_file_that_cannot_be_used_is_said_so(tmp_path, content):
    path = tmp_path / "own.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EnvironmentUnusableError, match="SSL_CERT_FILE"):
        tls_context({"SSL_CERT_FILE": str(path)})


@pytest.mark.parametrize("names", [["ca-certificates.crt"], ["ca-certificates.crt", "0a1b2c3d.0"], None])
def test_the_systems_directory_serves_if_it_is_hashed_and_certifis_bundle_if_not(monkeypatch, tmp_path, names):
    directory = None
    if names is not None:
        directory = str(tmp_path)
        for name in names:
            (tmp_path / name).write_text("")
    paths = ssl.get_default_verify_paths()._replace(capath=directory)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    context = tls_context({})
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert bool(context.get_ca_certs()) == (names is None or len(names) == 1)  # of a directory, nothing is loaded yet
