"""When a reading asks again, how long it waits, and when it gives up: on a clock of our own."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest

from creditguard.errors import AuthenticationError, RateLimited, SourceError, UnexpectedResponse
from creditguard.rules.values import Balance
from creditguard.sources import retries
from creditguard.sources.outcomes import Answer, Failure
from creditguard.sources.retries import TRIES, Setback, read_with_retries


@pytest.fixture(autouse=True)
def _usual_pauses(monkeypatch):
    monkeypatch.setattr(retries, "PAUSE", 0.2)


BALANCE = Balance(Decimal(1), "credits", datetime(2026, 11, 22, tzinfo=timezone.utc))
DROPPED = Failure("the connection was cut off", "dropped")
REFUSED = Failure("connection refused", "network")


def answer(status, after=None):
    return Answer(status, {} if after is None else {"retry-after": after}, b"")


def judge(given):
    after = float(given.headers["retry-after"]) if given.headers else None
    if given.status == 200:
        return BALANCE
    if given.status == 401:
        return Setback(AuthenticationError("no", None, 401))
    if given.status == 429:
        return Setback(RateLimited("wait", None, 429, after), 2 if after is None else TRIES, after)
    return Setback(SourceError("down", None, 503, after), TRIES, after)


def walk(outcomes, timeout=10.0, takes=0.01, jitter=1.0):
    """The waits, and the result or error, of a reading whose requests end so and take so long each."""
    now = 100.0
    waits = []
    outcomes = iter(outcomes)

    def ask(left):
        nonlocal now
        assert left == pytest.approx(timeout - (now - 100.0))
        now += takes
        return next(outcomes)

    def sleep(seconds):
        nonlocal now
        waits.append(round(seconds, 6))
        now += seconds

    try:
        result = read_with_retries(
            ask, judge, "gateway.example", timeout, clock=lambda: now, sleep=sleep, jitter=lambda: jitter
        )
    except Exception as error:
        result = error
    assert next(outcomes, None) is None, "asked too few times"
    assert now - 100.0 <= timeout + takes
    return waits, result


def test_a_balance_at_once():
    assert walk([answer(200)]) == ([], BALANCE)


def test_network_trouble_is_tried_again_with_doubling_pauses():
    waits, error = walk([REFUSED] * TRIES)
    assert waits == [0.2, 0.4, 0.8]
    assert isinstance(error, SourceError)
    assert "gateway.example could not be reached: connection refused" in str(error)
    assert walk([REFUSED, answer(503), answer(200)]) == ([0.2, 0.4], BALANCE)


def test_pauses_are_jittered():
    assert walk([REFUSED] * 2 + [answer(200)], jitter=0.0)[0] == [0.1, 0.2]


def test_a_connection_that_was_cut_off_is_tried_again_at_once_but_only_the_first_time():
    assert walk([DROPPED, answer(200)]) == ([0.0], BALANCE)
    assert walk([DROPPED] * TRIES)[0] == [0.0, 0.4, 0.8]
    assert walk([REFUSED, DROPPED, answer(200)])[0] == [0.2, 0.4]


def test_what_is_final_is_not_tried_again():
    for outcome, kind in (
        (answer(401), AuthenticationError),
        (Failure("its certificate was not trusted", "fatal"), SourceError),
        (Failure("not HTTP", "garbled"), UnexpectedResponse),
    ):
        waits, error = walk([outcome])
        assert waits == []
        assert type(error) is kind


def test_a_wait_that_the_source_asks_for_is_honoured_when_it_fits():
    assert walk([answer(429, "3"), answer(200)]) == ([3.0], BALANCE)
    assert walk([answer(503, "3"), answer(200)]) == ([3.0], BALANCE)
    assert walk([answer(429, "0"), answer(200)]) == ([0.2], BALANCE)
    assert walk([answer(429, "1")] * TRIES)[0] == [1.0, 1.0, 1.0]


def test_a_wait_that_does_not_fit_is_not_begun():
    for status, kind in ((429, RateLimited), (503, SourceError)):
        waits, error = walk([answer(status, "9.95")])
        assert waits == []
        assert type(error) is kind
        assert error.retry_after == 9.95
    assert walk([answer(429, "6"), answer(429, "6")])[0] == [6.0]


def test_429_without_a_word_on_when_to_come_back_is_tried_once_more():
    waits, error = walk([answer(429), answer(429)])
    assert waits == [0.2]
    assert type(error) is RateLimited
    assert error.retry_after is None


def test_nothing_is_tried_when_too_little_time_is_left_for_an_answer():
    waits, error = walk([answer(503)], timeout=0.25)
    assert waits == []
    assert error.status == 503
    waits, error = walk([Failure("no answer in time", "timeout")], timeout=1.0, takes=1.0)
    assert waits == []
    assert str(error) == "gateway.example did not answer within 1 s"
