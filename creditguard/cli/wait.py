"""`creditguard wait`: until the account can carry a budget, asking politely."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from creditguard.cli import exits
from creditguard.cli.output import printable, say
from creditguard.cli.preflight import guard_for, sink_for
from creditguard.errors import (
    AuthenticationError,
    BalanceUnavailable,
    CreditGuardError,
    InsufficientCredits,
    LedgerError,
    RateLimited,
)
from creditguard.rules.events import REFUSED, Event, waiting
from creditguard.rules.ports import EventSink
from creditguard.rules.values import Admission

T = TypeVar("T")


def run(options: argparse.Namespace) -> int:
    """Ask until the budget fits: 0. At the timeout the last answer's code: 75 when short."""
    sink = WaitingSink(sink_for(options))
    guard = guard_for(options, "wait", sink)

    def ask() -> Admission:
        admission = guard.ask()
        if admission.refusal:
            raise admission.refusal
        return admission

    try:
        until_it_fits(ask, options.timeout, options.interval, sink)
    except CreditGuardError as error:
        say(f"gave up: {error}")
        return exits.code_for(error, options.short_code)
    return exits.OK


class WaitingSink:
    """Tells a refusal that is not the last word as `waiting`: a line that is rewritten on a terminal, an event elsewhere."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._refusal: Event | None = None
        self._shown = False

    def emit(self, event: Event) -> None:
        if event.name != REFUSED:
            self.clear()
            self._sink.emit(event)
            return
        self._refusal = event
        if not self._terminal:
            self._sink.emit(waiting(event))

    def progress(self, error: CreditGuardError, left: float) -> None:
        """Show why and how long it still waits, on a terminal."""
        if self._terminal:
            sys.stderr.write(f"\r\x1b[Kwaiting, {left:.0f} s left: {printable(str(error))}")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False

    def give_up(self) -> None:
        """The last refusal stands."""
        if self._refusal:
            self._sink.emit(self._refusal)


def until_it_fits(attempt: Callable[[], T], timeout: float, interval: float, sink: WaitingSink) -> T:
    """Call `attempt` until it raises neither InsufficientCredits nor a passing failure; at the timeout, raise its last error.

    A rejected key does not pass by waiting and is raised at once. A source that says when to come back is not asked before.
    """
    deadline = time.monotonic() + timeout
    try:
        while True:
            try:
                return attempt()
            except (InsufficientCredits, BalanceUnavailable, LedgerError) as error:
                left = deadline - time.monotonic()
                pause = _pause(error, interval)
                too_late = left <= 0 or (isinstance(error, RateLimited) and pause > left)
                if too_late or isinstance(error, AuthenticationError):
                    sink.give_up()
                    raise
                sink.progress(error, left)
            time.sleep(min(pause, left))
    finally:
        sink.clear()


def _pause(error: CreditGuardError, interval: float) -> float:
    asked = (isinstance(error, BalanceUnavailable) and error.retry_after) or 0.0
    # Spread out, never earlier than asked: many that wait for the same top-up should not all ask in the same second.
    return max(interval * random.uniform(1.0, 1.2), asked * random.uniform(1.0, 1.1))  # noqa: S311 - not a secret
