"""What an answer means, without any I/O."""

from __future__ import annotations

import decimal
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import KEY

from creditguard.errors import (
    AuthenticationError,
    BalanceUnavailable,
    RateLimited,
    SourceError,
    UnexpectedResponse,
)
from creditguard.rules.amounts import LARGEST
from creditguard.rules.values import Balance
from creditguard.sources.api_key import ApiKey
from creditguard.sources.apimall_answers import judge, retry_after
from creditguard.sources.outcomes import Answer
from creditguard.sources.retries import TRIES, Setback

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
GOOD = {"success": True, "data": {"credits": 7, "api_credits": 120}, "request_id": "req_1"}


def judged(body=b"", status=200, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge(Answer(status, named, content), "gateway.example", ApiKey(KEY), NOW)


def error_of(*args, **kwargs):
    verdict = judged(*args, **kwargs)
    assert isinstance(verdict, Setback)
    assert KEY not in str(verdict.error)
    assert str(verdict.error).isprintable()
    return verdict.error


def credited(value):
    """A good answer whose amount is this piece of JSON."""
    return b'{"success": true, "data": {"credits": 7, "api_credits": %s}, "request_id": "req_1"}' % value


def test_the_balance_is_what_stands_at_api_credits():
    assert judged(GOOD) == Balance(Decimal(120), "credits", NOW, "req_1", "apimall")


@pytest.mark.parametrize(
    ("given_amount", "amount"),
    [
        (b"0", "0"),
        (b"-5", "-5"),
        (b"120.0", "120"),
        (b"1.2e2", "120"),
        (b"-0", "0"),
        (b"-0.0", "0"),
        (b"1000000000000", "1000000000000"),
    ],
)
def test_whole_numbers_are_balances(given_amount, amount):
    assert str(judged(credited(given_amount)).amount) == amount


def test_the_host_programs_decimal_context_changes_nothing():
    with decimal.localcontext(decimal.Context(prec=3, traps=[decimal.Inexact, decimal.Rounded])):
        assert judged(credited(b"123456.0")).amount == 123456


@pytest.mark.parametrize(
    ("amount", "why"),
    [
        (b"null", "null"),
        (b"true", "true or false"),
        (b"false", "true or false"),
        (b'"120"', "text, not a number: 120"),
        (b'"lots"', "text, not a number: lots"),
        (b"[120]", "a list"),
        (b'{"value": 120}', "an object"),
        (b"1.5", "not a whole number: 1.5"),
        (b"1e-3", "not a whole number"),
        (b"1000000000001", "too large"),
        (b"-1000000000001", "too large"),
        (b"1e400", "too large"),
        (b"1e999999999999999999999999", "not JSON"),
        (b"9" * 400, "too large"),
        (b"9" * 30_000, "too large|not JSON"),
        (b"NaN", "not JSON"),
        (b"Infinity", "not JSON"),
        (b"-Infinity", "not JSON"),
        (b'1, "api_credits": 1', "not JSON"),
        (b"01", "not JSON"),
    ],
)
def test_anything_else_is_an_unexpected_response_with_the_request_id(amount, why):
    error = error_of(credited(amount), x_request_id="req_1")
    assert isinstance(error, UnexpectedResponse)
    assert error.request_id == "req_1"
    with pytest.raises(UnexpectedResponse, match=why):
        raise error


@pytest.mark.parametrize(
    "body",
    [
        {"success": True},
        {"success": True, "data": None},
        {"success": True, "data": [120]},
        {"success": True, "data": {"credits": 120}},
        {"data": {"api_credits": 120}},
        {"success": 1, "data": {"api_credits": 120}},
        {"success": "true", "data": {"api_credits": 120}},
        {"success": None, "data": {"api_credits": 120}},
        {"success": False, "data": {"api_credits": 120}},
        {"success": False, "error": {"code": ["unauthorized"]}},
        {"success": False, "error": "unauthorized"},
        {"success": False, "error": {"code": "out_of_cheese", "message": "Sorry."}},
        [],
        120,
        None,
    ],
)
def test_an_answer_of_another_shape_is_an_unexpected_response(body):
    error = error_of(body)
    assert isinstance(error, UnexpectedResponse)
    assert error.status == 200


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"<html>\n<body>Down", r"not JSON: <html>\\n<body>Down"),
        (b'{"success": true, "da', "not JSON"),
        (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "not JSON"),
        (json.dumps(GOOD).encode("utf-16"), "not JSON"),
        (b'{"success": "\xff"}', "not JSON"),
        (b"[" * 60_000, "too deep|not JSON"),
        (b'{"a":' * 10_000, "too deep|not JSON"),
        (b'{"success": true, "success": true}', "not JSON"),
        (json.dumps(GOOD).encode() + b"x", "not JSON"),
        (b"\x1b[2J\x07 \xe2\x80\xae", r"not JSON: \\x1b\[2J\\x07 \\u202e"),
        (b"<p>" * 1000, r"not JSON: (<p>){20}\.\.\.$"),
    ],
)
def test_what_is_not_json_is_quoted_briefly_and_harmlessly(body, why):
    error = error_of(body)
    assert isinstance(error, UnexpectedResponse)
    with pytest.raises(UnexpectedResponse, match=why):
        raise error


def test_an_answer_that_was_cut_off_or_is_compressed_is_an_unexpected_response():
    verdict = judge(Answer(200, {}, b"{", cut=True), "gateway.example", ApiKey(KEY), NOW)
    assert "64 KiB" in verdict.error.message
    assert "compressed" in error_of(GOOD, content_encoding="gzip").message
    assert isinstance(judged(GOOD, content_encoding="Identity"), Balance)


@pytest.mark.parametrize(
    ("status", "kind", "tries", "words"),
    [
        (400, SourceError, 1, "refused the request"),
        (401, AuthenticationError, 1, "missing or invalid"),
        (402, SourceError, 1, "refused the request"),
        (403, AuthenticationError, 1, "not approved for this account, or this host is not the gateway"),
        (404, SourceError, 1, "is it the gateway"),
        (408, SourceError, TRIES, "could not answer"),
        (418, SourceError, 1, "refused the request"),
        (425, SourceError, TRIES, "could not answer"),
        (429, RateLimited, 2, "limiting"),
        (500, SourceError, TRIES, "could not answer"),
        (502, SourceError, TRIES, "could not answer"),
        (503, SourceError, TRIES, "could not answer"),
        (599, SourceError, TRIES, "could not answer"),
        (204, UnexpectedResponse, 1, "without a balance"),
        (304, UnexpectedResponse, 1, "redirects"),
        (302, UnexpectedResponse, 1, "redirects"),
    ],
)
def test_every_other_status_is_an_error_of_its_kind(status, kind, tries, words):
    body = {"success": False, "error": {"code": "some_code", "message": "Some words."}, "request_id": "req_9"}
    verdict = judged(body, status)
    assert type(verdict.error) is kind
    assert verdict.tries == tries
    assert verdict.error.status == status
    assert verdict.error.request_id == "req_9"
    assert words in verdict.error.message
    assert f"({status}: some_code: Some words.)" in verdict.error.message
    assert type(judged(b"<html>", status, x_request_id="req_8").error) is kind
    assert judged(b"<html>", status, x_request_id="req_8").error.request_id == "req_8"
    assert type(judged(GOOD, status).error) is kind  # a balance in an answer of another status is none


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("unauthorized", AuthenticationError),
        ("forbidden", AuthenticationError),
        ("not_found", SourceError),
        ("rate_limited", RateLimited),
        ("internal_error", SourceError),
        ("insufficient_credits", UnexpectedResponse),
    ],
)
def test_an_error_with_status_200_is_known_by_its_code(code, kind):
    error = error_of({"success": False, "error": {"code": code, "message": "Why."}, "request_id": "req_1"})
    assert type(error) is kind
    assert error.status == 200
    assert f"{code}: Why." in error.message


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://user:hunter2@elsewhere.example:8443/a?key=hunter2#x", "elsewhere.example:8443"),
        ("https://elsewhere.example?key=hunter2", "elsewhere.example"),
        ("/login?key=hunter2", "another place"),
        ("", "another place"),
        (f"https://{KEY}.example/", "***.example"),
    ],
)
def test_a_redirect_names_the_host_alone(location, shown):
    error = error_of(b"", 302, location=location)
    assert f"redirects to {shown}, " in error.message
    assert "hunter2" not in error.message


@pytest.mark.parametrize(
    ("request_id", "kept"),
    [
        ("req_1", "req_1"),
        ("x" * 5000, "x" * 100),
        ("req\r\n\x1b[1m_\u00e9\ud800 2", "req[1m_2"),
        (f"req_{KEY}", "req_***"),
        ("", None),
        (12, None),
        (None, None),
        (["req_1"], None),
    ],
)
def test_the_request_id_is_short_and_printable(request_id, kept):
    assert judged(GOOD | {"request_id": request_id}).request_id == kept
    assert error_of({"success": False, "request_id": request_id}).request_id == kept


def test_the_request_id_may_come_in_a_header():
    nameless = {name: value for name, value in GOOD.items() if name != "request_id"}
    assert judged(nameless, x_request_id="req_h").request_id == "req_h"
    assert judged(GOOD, x_request_id="req_h").request_id == "req_1"


@pytest.mark.parametrize("status", [200, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("echo", [KEY, KEY.upper(), f"Bearer {KEY}", "sk-another0key0of0this0account"])
def test_a_key_that_the_server_echoes_is_not_repeated(status, echo):
    for body in (
        {"success": False, "error": {"code": echo, "message": f"invalid key {echo}"}, "request_id": echo},
        {"success": True, "data": {"api_credits": echo}, "request_id": echo},
        echo.encode(),
        b"x" * 50 + echo.encode(),
    ):
        error = error_of(body, status, x_request_id=echo, location=f"https://{echo}/")
        assert echo.lower() not in f"{error} {error.args}".lower()
        assert echo.lower()[:20] not in f"{error} {error.args}".lower()


ODD_KEY = "live0123456789/@abcdef?x#y"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {"location": f"https://{ODD_KEY}.example/"}),
        (b"", {"x-request-id": " " * 980 + ODD_KEY}),
        (json.dumps({"request_id": "\0" * 980 + ODD_KEY}).encode(), {}),
        (json.dumps({"error": {"code": "\0".join(ODD_KEY)}}).encode(), {}),
        (f"invalid key {ODD_KEY}".encode("utf-16"), {}),
        (f"invalid key {ODD_KEY}".encode("utf-32-be"), {}),
    ],
)
@pytest.mark.parametrize("status", [200, 302, 401])
def test_a_key_that_is_echoed_in_pieces_is_not_repeated(status, body, headers):
    """A key of any form, which nothing but the key itself tells."""
    error = judge(Answer(status, headers, body), "gateway.example", ApiKey(ODD_KEY), NOW).error
    shown = str(error.args).replace("\\\\x00", "")
    assert ODD_KEY[:12] not in shown


def test_a_deep_answer_does_not_crash_a_process_that_has_raised_its_recursion_limit():
    program = """
import sys, threading
from datetime import datetime, timezone
from creditguard.sources.api_key import ApiKey
from creditguard.sources.apimall_answers import judge
from creditguard.sources.outcomes import Answer
sys.setrecursionlimit(10**6)
def read():
    for body in (b"[" * 65536, b'{"a":' * 13000):
        print(judge(Answer(200, {}, body), "gateway.example", ApiKey("sk-0123456789"), datetime.now(timezone.utc)).error)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.count("nested too deep") == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_any_value_at_api_credits_is_a_whole_number_or_an_unexpected_response(value):
    verdict = judged({"success": True, "data": {"api_credits": value}, "request_id": "req_1"})
    if isinstance(verdict, Balance):
        assert isinstance(value, (int, float))
        assert not isinstance(value, bool)
        assert verdict.amount == value
        assert verdict.amount == verdict.amount.to_integral_value()
        assert abs(verdict.amount) <= LARGEST
    else:
        assert type(verdict.error) is UnexpectedResponse
        assert verdict.error.request_id in {"req_1", None}


@given(
    st.binary() | JSON.map(lambda value: json.dumps(value).encode()),
    st.integers(100, 999),
    st.dictionaries(st.sampled_from(["retry-after", "location", "content-encoding", "x-request-id"]), st.text()),
)
def test_any_answer_at_all_is_a_balance_or_a_reason(body, status, headers):
    verdict = judge(Answer(status, headers, body), "gateway.example", ApiKey(KEY), NOW)
    if isinstance(verdict, Balance):
        assert status == 200
    else:
        assert isinstance(verdict.error, BalanceUnavailable)
        assert str(verdict.error).isprintable()
        assert verdict.after is None or verdict.after >= 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30),
        ("Sunday, 22-Nov-26 12:00:30 GMT", 30),
        ("Sun Nov 22 12:00:30 2026", 30),
        ("Sun, 22 Nov 2026 11:59:00 GMT", 0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("NaN", None),
        ("inf", None),
        ("1e9", None),
        ("\u0663", None),
        ("9" * 500, None),
        ("Sun, 99 Nov 2026 12:00:30 GMT", None),
        ("Sun, 22 Nov 99999 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_in_seconds_or_a_date(value, seconds):
    assert retry_after(value, NOW) == seconds


@given(st.timedeltas(timedelta(0), timedelta(days=365)))
def test_retry_after_as_a_date_is_read_back(wait):
    date = (NOW + wait).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert 0 <= wait.total_seconds() - retry_after(date, NOW) < 1


@given(st.text())
def test_any_retry_after_is_a_wait_or_nothing(value):
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0
