"""When to ask again. No I/O and no clock of its own.

- Everything happens within one deadline. A wait that would leave too little of it for an answer is not begun: the error that
  is known by then is raised at once.
- A connection that was cut off is tried once more at once: it may have been kept open too long, and nothing is wrong.
- Network trouble, 408, 425 and 5xx are tried four times in all, with a jittered, doubling pause between.
- A wait that the source asks for (Retry-After) is honoured: never shortened, and not begun when it does not fit.
- 429 without Retry-After is tried once more. Anything else is final.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from creditguard.errors import BalanceUnavailable, SourceError, UnexpectedResponse
from creditguard.rules.values import Balance
from creditguard.sources.outcomes import Answer, Failure

TRIES = 4
PAUSE = 0.2
"""Seconds: the first pause is half to all of it, and each one after is twice as long."""
LEAST = 0.1
"""Seconds that must be left for an answer if a wait is to be worth it."""


class Setback(NamedTuple):
    """Why there is no balance yet, how many tries that is worth in all, and for how long the source asked to wait."""

    error: BalanceUnavailable
    tries: int = 1
    after: float | None = None
    at_once: bool = False
    """The first repetition needs no pause."""


def read_with_retries(
    ask: Callable[[float], Answer | Failure],
    judge: Callable[[Answer], Balance | Setback],
    where: str,
    timeout: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    jitter: Callable[[], float],
) -> Balance:
    """One reading within `timeout` seconds.

    `ask` sends the request and is told how many seconds are left, `judge` says what an answer means, `where` names the source
    in errors, `jitter` gives numbers from 0 to 1. Raises BalanceUnavailable.
    """
    due = clock() + timeout
    tried = 0
    while True:
        outcome = ask(due - clock())
        tried += 1
        verdict = judge(outcome) if isinstance(outcome, Answer) else _setback(outcome, where, timeout)
        if isinstance(verdict, Balance):
            return verdict
        pause = _pause(verdict, tried, jitter)
        if tried >= verdict.tries or pause + LEAST > due - clock():
            raise verdict.error
        sleep(pause)


def _pause(setback: Setback, tried: int, jitter: Callable[[], float]) -> float:
    if setback.at_once and tried == 1:
        return 0.0
    pause = PAUSE * 2.0 ** (tried - 1) * (1 + jitter()) / 2
    return max(pause, setback.after or 0.0)


def _setback(failure: Failure, where: str, timeout: float) -> Setback:
    match failure.kind:
        case "garbled":
            return Setback(UnexpectedResponse(f"{where} gave an answer that is not HTTP"))
        case "timeout":
            return Setback(SourceError(f"{where} did not answer within {timeout:g} s"), TRIES)
        case "fatal":
            return Setback(SourceError(f"{where} cannot be asked: {failure.why}"))
        case _:
            error = SourceError(f"{where} could not be reached: {failure.why}")
            return Setback(error, TRIES, at_once=failure.kind == "dropped")
