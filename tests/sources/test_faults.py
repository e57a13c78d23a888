"""Whatever a server or a network does, a reading ends in time, with the right error, and keeps the key to itself.

Each test reads in the main thread, and in another.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import freezegun
import pytest
from scripted_server import KEY, SLACK, balance, drip, hang_up, http, never, refusal, reset, then_hang_up

from creditguard.errors import AuthenticationError, RateLimited, SourceError, UnexpectedResponse
from creditguard.sources import transport
from creditguard.sources.apimall import ApiMall
from creditguard.sources.retries import TRIES

SHORT = 0.3


def test_a_balance(server, source, read):
    found = read(source)
    assert (found.amount, found.unit, found.request_id, found.source) == (Decimal(120), "credits", "req_1", "apimall")
    assert abs(found.read_at - datetime.now(timezone.utc)) < timedelta(seconds=5)
    (request,) = server.requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /api/v1/account/balances HTTP/1.1"
    assert f"Authorization: Bearer {KEY}" in lines
    assert "Accept-Encoding: identity" in lines
    assert f"Host: 127.0.0.1:{server.port}" in lines


@pytest.mark.parametrize(
    ("status", "code", "kind", "asked"),
    [
        (401, "unauthorized", AuthenticationError, 1),
        (402, "insufficient_credits", SourceError, 1),
        (403, "forbidden", AuthenticationError, 1),
        (404, "not_found", SourceError, 1),
        (429, "rate_limited", RateLimited, 2),
        (500, "internal_error", SourceError, TRIES),
        (503, "internal_error", SourceError, TRIES),
    ],
)
def test_every_refusal(server, source, read, status, code, kind, asked):
    server.script = [refusal(status, code, f"About {KEY}.")]
    error = read.fails(source, kind)
    assert error.status == status
    assert error.request_id == "req_2"
    assert f"{code}: About ***." in str(error)
    assert len(server.requests) == asked


def test_a_passing_failure_is_got_over(server, source, read):
    server.script = [refusal(500, "internal_error"), hang_up, balance(119)]
    assert read(source).amount == 119


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(200, b"<!DOCTYPE html>\n<html>"), "not JSON: <!DOCTYPE html>"),
        (http(200, b""), "empty"),
        (balance("120"), "text"),
        (http(200, gzip.compress(b"0" * 10_000_000), Content_Encoding="gzip"), "compressed"),
        (http(200, b" " * 1024 * 1024), "64 KiB"),
        (http(302, b"", Location="https://u:p@elsewhere.example/?k=v"), "redirects to elsewhere.example, "),
        (http(204, b""), "without a balance"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, "not HTTP"),
        (http(200, f"Your key is {KEY}".encode()), "not JSON: Your key is ***"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_an_answer_that_is_no_balance(server, source, read, answer, words):
    """Of what test_answers.py has in full, some of each kind."""
    server.script = [answer]
    error = read.fails(source, UnexpectedResponse)
    assert words in str(error)
    assert len(server.requests) == 1


def test_a_long_body_does_not_hide_a_status(server, source, read):
    server.script = [http(401, b" " * 1024 * 1024)]
    assert read.fails(source, AuthenticationError).status == 401


def test_a_body_that_breaks_off_does_not_hide_a_status(server, source, read):
    server.script = [then_hang_up(refusal(403, "forbidden")[:-20])]
    assert read.fails(source, AuthenticationError).status == 403


def test_an_oversized_answer_leaves_nothing_behind(server, source, read):
    server.script = [http(404, b" " * 70_000)]
    read.fails(source, SourceError)
    server.script = [balance()]
    assert read(source).amount == 120


def then_drip(start):
    def act(client, request):
        client.sendall(start)
        drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000)(client, request)

    return act


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["headers", "body"])
def test_a_server_that_drips_does_not_outlast_the_deadline(server, source, read, start):
    server.script = [then_drip(start)]
    error = read.fails(source, SourceError, SHORT)
    assert "did not answer within 0.3 s" in str(error)


def test_a_dripping_refusal_is_known_by_its_status(server, source, read):
    def act(client, request):
        client.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 1000\r\n\r\n")
        drip(b"y" * 1000)(client, request)

    server.script = [act]
    assert read.fails(source, AuthenticationError, SHORT).status == 401


def test_a_server_that_says_nothing(server, source, read):
    server.script = [never]
    assert "did not answer within 0.3 s" in str(read.fails(source, SourceError, SHORT))


def test_endless_provisional_answers_do_not_outlast_the_deadline(server, source, read):
    server.script = [drip(b"HTTP/1.1 102 Processing\r\n\r\n" * 100, every=0.001)]
    read.fails(source, SourceError, SHORT)
    server.script = [b"HTTP/1.1 102 Processing\r\n\r\n" * 100_000]
    assert "not HTTP" in str(read.fails(source, UnexpectedResponse))


@pytest.mark.parametrize("act", [hang_up, reset, then_hang_up(balance()[:-10]), then_hang_up(b"HTTP/1.1 200")])
def test_a_connection_that_is_cut_off_is_tried_again(server, source, read, act):
    server.script = [act, balance()]
    assert read(source).amount == 120
    server.script = [act]
    error = read.fails(source, SourceError)
    assert "could not be reached: " in str(error)
    assert len(server.requests) == 2 + TRIES


def test_nobody_listens(read):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = read.fails(ApiMall(KEY, f"http://127.0.0.1:{port}"), SourceError)
    assert str(error) == f"127.0.0.1:{port} could not be reached: connection refused"


@pytest.fixture
def names(monkeypatch):
    """What a resolver says to a name: addresses, an error to raise, or a function to call first."""
    known = {}
    resolve = socket.getaddrinfo

    def lookup(host, port, *args, **kwargs):
        said = known.get(host, [host])
        if isinstance(said, Exception):
            raise said
        if callable(said):
            said = said()
        return [found for address in said for found in resolve(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return known


@contextlib.contextmanager
def black_hole(host="127.0.0.1", port=0):
    """A port that takes no connection and refuses none."""
    with socket.create_server((host, port), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_listener_that_does_not_accept(read):
    with black_hole() as port:
        error = read.fails(ApiMall(KEY, f"http://127.0.0.1:{port}"), SourceError, SHORT)
    assert "did not answer within" in str(error)


def test_a_name_that_does_not_exist(read, names):
    names["nowhere.invalid"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    error = read.fails(ApiMall(KEY, "https://nowhere.invalid"), SourceError)
    assert str(error) == "nowhere.invalid could not be reached: the name could not be resolved"


def test_a_resolver_that_hangs_does_not_outlast_the_deadline(read, names):
    done = threading.Event()
    names["slow.example"] = lambda: done.wait(10) and ["127.0.0.1"]
    error = read.fails(ApiMall(KEY, "https://slow.example"), SourceError, SHORT)
    done.set()
    assert "did not answer within" in str(error)


def test_readings_that_hang_are_left_behind_and_only_so_many(server, source, read, names):
    done = threading.Event()
    names["slow.example"] = lambda: done.wait(10) and ["127.0.0.1"]
    slow = ApiMall(KEY, "https://slow.example:9")
    while len(transport._process._left_behind) < transport.MOST_LEFT_BEHIND:
        assert "did not answer within" in str(read.fails(slow, SourceError, 0.1))
    started = time.monotonic()
    assert str(read.fails(slow, SourceError)) == "slow.example:9 cannot be asked: 4 earlier readings still hang"
    assert time.monotonic() - started < 4
    done.set()
    until = time.monotonic() + 5
    while "still hang" in str(read.fails(slow, SourceError)) and time.monotonic() < until:
        time.sleep(0.01)
    assert read(source).amount == 120


def test_a_name_with_a_dead_address_and_a_live_one(server, read, names, monkeypatch):
    """The first address answers no one; the second is asked before the deadline."""
    monkeypatch.setattr("creditguard.sources.apimall_checks.is_loopback", lambda _: True)
    names["two.example"] = ["127.0.0.2", "127.0.0.1"]
    with black_hole("127.0.0.2", server.port):
        assert read(ApiMall(KEY, f"http://two.example:{server.port}"), 1.5).amount == 120
    assert server.connections == 1


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["headers", "body"])
def test_a_server_that_drips_on_a_kept_connection_does_not_outlast_the_deadline(server, source, in_thread, start):
    server.script = [balance(), then_drip(start)]

    def second():
        source.read(5)
        return source.read(SHORT)

    started = time.monotonic()
    with pytest.raises(SourceError, match="did not answer within"):
        in_thread.run(second)
    assert time.monotonic() - started < SHORT + SLACK
    assert server.connections == 1


def test_a_job_that_froze_its_clock_is_not_kept_waiting(server, source, read):
    server.script = [then_drip(b"")]
    with freezegun.freeze_time("2026-11-24"):
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        with pytest.raises(SourceError, match="did not answer within"):
            read(source, SHORT)
        assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < SHORT + SLACK


def test_retry_after_in_seconds_is_waited_for(server, source, read):
    server.script = [refusal(429, "rate_limited", Retry_After="0.2"), balance()]
    started = time.monotonic()
    assert read(source).amount == 120
    assert time.monotonic() - started >= 0.2


def test_retry_after_as_a_date_is_waited_for(server, source):
    date = datetime.now(timezone.utc) + timedelta(seconds=1)
    server.script = [refusal(429, "rate_limited", Retry_After=date.strftime("%a, %d %b %Y %H:%M:%S GMT")), balance()]
    assert source.read(5).amount == 120


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_beyond_the_deadline_is_passed_on_at_once(server, source, read, status):
    server.script = [refusal(status, "rate_limited", Retry_After="30")]
    started = time.monotonic()
    error = read.fails(source, RateLimited if status == 429 else SourceError)
    assert time.monotonic() - started < 4
    assert error.retry_after == 30
    assert len(server.requests) == 1


def test_no_time_at_all(source, read):
    for timeout in (0.0, -1.0):
        assert "did not answer within" in str(read.fails(source, SourceError, timeout))


def test_all_the_time_there_is(source, read):
    assert read(source, float("inf")).amount == 120


def test_a_job_that_failed_for_a_like_reason_is_not_mistaken_for_the_reading(read):
    """The reading at exit is made while the job's own exception is being handled."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    try:
        raise FileNotFoundError(2, "the job's")
    except FileNotFoundError:
        with pytest.raises(SourceError, match="connection refused"):
            read(ApiMall(KEY, f"http://127.0.0.1:{port}"), SHORT)


def test_what_json_says_is_what_is_read(server, source, read):
    """Not what a float would make of it."""
    server.script = [http(200, json.dumps({"success": True, "data": {"api_credits": 999_999_999_999}}).encode())]
    assert read(source).amount == Decimal(999_999_999_999)
