"""When to ask again: the rules that sync and async readings share, as a generator without I/O.

It yields `Send` and is sent the `Reply` or `Failure`; it yields `Wait` and is sent None. It returns the balance or raises.

- Everything happens within one deadline. A wait that would leave too little of it for an answer is not begun: the error that
  is known by then is raised at once.
- A connection that was cut off is tried once more at once: it may have been kept open too long, and nothing is wrong.
- Network trouble, 408, 425 and 5xx are tried four times in all, with a jittered, doubling pause between.
- A wait that the source asks for (Retry-After) is honoured: never shortened, and not begun when it does not fit.
- 429 without Retry-After is tried once more. Anything else is final.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeAlias

from creditguard.errors import BalanceUnavailable, SourceError, UnexpectedResponse
from creditguard.rules.values import Balance
from creditguard.sources.exchange import Failure, Reply, Send, Wait

TRIES = 4
PAUSE = 0.2
"""Seconds: the first pause is half to all of it, and each one after is twice as long."""
LEAST = 0.1
"""Seconds that must be left for an answer if a wait is to be worth it."""

Steps: TypeAlias = Generator["Send | Wait", "Reply | Failure | None", Balance]


class Setback(NamedTuple):
    """Why there is no balance yet, how many tries that is worth in all, and for how long the source asked to wait."""

    error: BalanceUnavailable
    tries: int = 1
    after: float | None = None
    at_once: bool = False
    """The first repetition needs no pause."""


def reading(
    judge: Callable[[Reply], Balance | Setback],
    where: str,
    timeout: float,
    *,
    monotonic: Callable[[], float],
    jitter: Callable[[], float],
) -> Steps:
    """One reading within `timeout` seconds.

    `judge` says what a reply means, `where` names the source in errors, `jitter` gives numbers from 0 to 1.
    """
    started = monotonic()
    tried = 0
    while True:
        left = timeout - (monotonic() - started)
        outcome = yield Send(left)
        tried += 1
        if isinstance(outcome, Reply):
            verdict = judge(outcome)
            if isinstance(verdict, Balance):
                return verdict
        else:
            assert isinstance(outcome, Failure)  # noqa: S101 - the drivers' side of the agreement
            verdict = _setback(outcome, where, timeout)
        pause = _pause(verdict, tried, jitter)
        left = timeout - (monotonic() - started)
        if tried >= verdict.tries or pause + LEAST > left:
            raise verdict.error
        yield Wait(pause)


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
