"""Keys and URLs that cannot be used are told apart before anything is sent, and never quoted."""

from __future__ import annotations

import pickle
import subprocess
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditguard.errors import ConfigurationError
from creditguard.sources.api_key import ApiKey
from creditguard.sources.apimall import ApiMall
from creditguard.sources.apimall_checks import check_base_url, check_key


@pytest.mark.parametrize("key", ["sk-0123456789abcdef", "k", "a+b/c==", "~!@#$%^&*()"])
def test_a_key_that_fits_a_header_is_taken_as_it_is(key):
    assert check_key(key) == key


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "empty"),
        ("Bearer sk-secret", "white space"),
        ("sk-secret\n", "white space"),
        ("sk-secret\r\nX-Evil: 1", "white space"),
        (" sk-secret", "white space"),
        ("sk\u00a0secret", "white space"),
        ("sk-secret\0", "control character"),
        ("sk-secret\x1b[2J", "control character"),
        ("sk-secret\x7f", "control character"),
        ("sk-s\u00e9cret", "beyond ASCII"),
        ("\u201csk-secret\u201d", "beyond ASCII"),
    ],
)
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        check_key(key, "MY_KEY")
    assert caught.value.setting == "MY_KEY"
    assert str(caught.value).startswith("MY_KEY ")
    assert "secret" not in repr(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("https://gateway.apimall.ai", "https://gateway.apimall.ai"),
        ("https://gateway.apimall.ai/", "https://gateway.apimall.ai"),
        ("HTTPS://Gateway.APIMall.ai:443/", "https://gateway.apimall.ai"),
        ("https://gateway.apimall.ai/api/v1", "https://gateway.apimall.ai"),
        ("https://gateway.apimall.ai/api/v1/", "https://gateway.apimall.ai"),
        ("https://proxy.example.com:8443/Mall/", "https://proxy.example.com:8443/Mall"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://127.255.254.253:1", "http://127.255.254.253:1"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://[0:0:0:0:0:0:0:1]:81", "http://[::1]:81"),
    ],
)
def test_a_url_comes_in_its_plain_form(given_url, url):
    assert check_base_url(given_url) == url
    assert check_base_url(url) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "empty"),
        ("gateway.apimall.ai", "https://"),
        ("//gateway.apimall.ai", "https://"),
        ("ftp://gateway.apimall.ai", "https://"),
        ("file:///etc/passwd", "https://"),
        ("http://gateway.apimall.ai", "https://"),
        ("http://127.0.0.1.evil.example", "https://"),
        ("http://127.1", "https://"),
        ("http://127.0.0.256", "host"),
        ("http://localhost.evil.example", "https://"),
        ("http://[::ffff:127.0.0.1]", "https://"),
        ("http://0.0.0.0", "https://"),
        ("https://user:hunter2@gateway.apimall.ai", "user name"),
        ("https://hunter2@gateway.apimall.ai", "user name"),
        ("https://gateway.apimall.ai?key=hunter2", "query"),
        ("https://gateway.apimall.ai/#hunter2", "fragment"),
        ("https://gateway.apimall.ai\\@evil.example", "backslash"),
        ("https://gateway.apimall.ai/a b", "white space"),
        ("https://gateway.apimall.ai\n", "white space"),
        ("https://g\u00e4teway.example", "beyond ASCII"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://:443", "host"),
        ("https://a..b", "host"),
        ("https://a%20b", "host"),
        ("https://256.1.1.1", "host"),
        (f"https://{'x' * 64}.example", "host"),
        ("https://[::1", "host"),
        ("https://[hunter2]", "host"),
        ("https://[fe80::1%25eth0]", "host"),
        ("https://[::1]x", "port"),
        ("https://gateway.apimall.ai:0", "port"),
        ("https://gateway.apimall.ai:65536", "port"),
        ("https://gateway.apimall.ai:", "port"),
        ("https://gateway.apimall.ai:x", "port"),
        ("https://gateway.apimall.ai:44\u0663", "beyond ASCII"),
        ("https://gateway.apimall.ai:-1", "port"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_quoted(url, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        check_base_url(url, "MY_URL")
    assert caught.value.setting == "MY_URL"
    assert str(caught.value).startswith("MY_URL ")
    assert "hunter2" not in repr(caught.value)
    assert "\n" not in str(caught.value)


@given(st.from_regex(r"https://[a-z0-9.:_\[\]-]{1,20}(/[!-~]{0,10})?", fullmatch=True))
def test_httpx_takes_any_url_that_is_taken(url):
    try:
        plain = check_base_url(url)
    except ConfigurationError:
        return
    assert httpx.URL(plain).host in plain


@given(st.text())
def test_any_text_is_a_url_or_a_configuration_error(text):
    for url in (text, f"https://{text}", f"http://localhost{text}"):
        try:
            plain = check_base_url(url)
        except ConfigurationError:
            continue
        assert check_base_url(plain) == plain


def test_the_source_checks_both():
    with pytest.raises(ConfigurationError, match="APIMALL_API_KEY"):
        ApiMall("sk secret")
    with pytest.raises(ConfigurationError, match="CREDITGUARD_BASE_URL"):
        ApiMall("sk-secret", "http://gateway.apimall.ai")


def test_the_account_is_one_per_gateway_and_key_and_tells_neither():
    source = ApiMall("sk-secret", "https://gateway.apimall.ai/")
    assert source.account == ApiMall("sk-secret", "https://GATEWAY.apimall.ai:443/api/v1").account
    assert source.account != ApiMall("sk-secret", "https://other.apimall.ai").account
    assert source.account != ApiMall("sk-secres").account
    assert len(source.account) == 12
    assert int(source.account, 16) >= 0
    assert "sk-secret" not in repr(source) + str(vars(source))
    assert source.account == ApiMall(ApiKey("sk-secret")).account


def test_a_source_can_be_sent_to_another_process():
    source = pickle.loads(pickle.dumps(ApiMall("sk-secret", "https://gateway.example")))
    assert repr(source) == repr(ApiMall("sk-secret", "https://gateway.example"))
    assert source._key.get_secret_value() == "sk-secret"


def test_making_a_source_loads_no_http_client():
    code = (
        "import sys; from creditguard.sources.apimall import ApiMall; ApiMall('sk-secret')\n"
        "print(sorted({'httpx', 'httpcore', 'asyncio', 'ssl', 'socket', 'email', 'urllib.request'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
