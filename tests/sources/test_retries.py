"""When a reading asks again, how long it waits, and when it gives up: walked by hand, on a clock of our own."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest

from creditguard.errors import AuthenticationError, RateLimited, SourceError, UnexpectedResponse
from creditguard.rules.values import Balance
from creditguard.sources import retries
from creditguard.sources.exchange import Failure, Reply, Send, Wait
from creditguard.sources.retries import TRIES, Setback, reading


@pytest.fixture(autouse=True)
def _usual_pauses(monkeypatch):
    monkeypatch.setattr(retries, "PAUSE", 0.2)


BALANCE = Balance(Decimal(1), "credits", datetime(2026, 11, 22, tzinfo=timezone.utc))
DROPPED = Failure("the connection was cut off", "dropped")
REFUSED = Failure("connection refused", "network")


def reply(status, after=None):
    return Reply(status, {} if after is None else {"retry-after": after}, b"")


def judge(answer):
    after = float(answer.headers["retry-after"]) if answer.headers else None
    if answer.status == 200:
        return BALANCE
    if answer.status == 401:
        return Setback(AuthenticationError("no", None, 401))
    if answer.status == 429:
        return Setback(RateLimited("wait", None, 429, after), 2 if after is None else TRIES, after)
    return Setback(SourceError("down", None, 503, after), TRIES, after)


def walk(outcomes, timeout=10.0, takes=0.01, jitter=1.0):
    """The waits, and the result or error, of a reading whose requests end so and take so long each."""
    clock = 100.0
    waits = []
    steps = reading(judge, "gateway.example", timeout, monotonic=lambda: clock, jitter=lambda: jitter)
    outcomes = iter(outcomes)
    step = next(steps)
    try:
        while True:
            if isinstance(step, Send):
                assert step.timeout == pytest.approx(timeout - (clock - 100.0))
                clock += takes
                step = steps.send(next(outcomes))
            else:
                assert isinstance(step, Wait)
                waits.append(round(step.seconds, 6))
                clock += step.seconds
                step = steps.send(None)
    except StopIteration as stop:
        result = stop.value
    except Exception as error:
        result = error
    assert next(outcomes, None) is None, "asked too few times"
    assert clock - 100.0 <= timeout + takes
    return waits, result


def test_a_balance_at_once():
    assert walk([reply(200)]) == ([], BALANCE)


def test_network_trouble_is_tried_again_with_doubling_pauses():
    waits, error = walk([REFUSED] * TRIES)
    assert waits == [0.2, 0.4, 0.8]
    assert isinstance(error, SourceError)
    assert "gateway.example could not be reached: connection refused" in str(error)
    assert walk([REFUSED, reply(503), reply(200)]) == ([0.2, 0.4], BALANCE)


def test_pauses_are_jittered():
    assert walk([REFUSED] * 2 + [reply(200)], jitter=0.0)[0] == [0.1, 0.2]


def test_a_connection_that_was_cut_off_is_tried_again_at_once_but_only_the_first_time():
    assert walk([DROPPED, reply(200)]) == ([0.0], BALANCE)
    assert walk([DROPPED] * TRIES)[0] == [0.0, 0.4, 0.8]
    assert walk([REFUSED, DROPPED, reply(200)])[0] == [0.2, 0.4]


def test_what_is_final_is_not_tried_again():
    for outcome, kind in (
        (reply(401), AuthenticationError),
        (Failure("its certificate was not trusted", "fatal"), SourceError),
        (Failure("not HTTP", "garbled"), UnexpectedResponse),
    ):
        waits, error = walk([outcome])
        assert waits == []
        assert type(error) is kind


def test_a_wait_that_the_source_asks_for_is_honoured_when_it_fits():
    assert walk([reply(429, "3"), reply(200)]) == ([3.0], BALANCE)
    assert walk([reply(503, "3"), reply(200)]) == ([3.0], BALANCE)
    assert walk([reply(429, "0"), reply(200)]) == ([0.2], BALANCE)
    assert walk([reply(429, "1")] * TRIES)[0] == [1.0, 1.0, 1.0]


def test_a_wait_that_does_not_fit_is_not_begun():
    for status, kind in ((429, RateLimited), (503, SourceError)):
        waits, error = walk([reply(status, "9.95")])
        assert waits == []
        assert type(error) is kind
        assert error.retry_after == 9.95
    assert walk([reply(429, "6"), reply(429, "6")])[0] == [6.0]


def test_429_without_a_word_on_when_to_come_back_is_tried_once_more():
    waits, error = walk([reply(429), reply(429)])
    assert waits == [0.2]
    assert type(error) is RateLimited
    assert error.retry_after is None


def test_nothing_is_tried_when_too_little_time_is_left_for_an_answer():
    waits, error = walk([reply(503)], timeout=0.25)
    assert waits == []
    assert error.status == 503
    waits, error = walk([Failure("no answer in time", "timeout")], timeout=1.0, takes=1.0)
    assert waits == []
    assert str(error) == "gateway.example did not answer within 1 s"
