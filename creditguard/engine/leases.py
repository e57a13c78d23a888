"""The holds of this process on one ledger, kept alive by the attendant.

A lease belongs to the process, not to the hold: however many runs there are, one lease is renewed, at a third of its length,
from the first hold until soon after the last. A process that guards nothing has no thread.

A run that vanished without an end (an interrupt between its admission and its first line, in a notebook that lives on) is
noticed on the same occasion, and its hold given back.

A fork is another process: the child starts with no holds, a new owner and no thread, and leaves its parent's runs alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakMethod

from creditguard.errors import LeaseLost, LedgerError, LedgerUnavailable
from creditguard.process import forks
from creditguard.process.background import attendant
from creditguard.process.identity import this_process
from creditguard.rules.ports import Ledger
from creditguard.rules.report import Report
from creditguard.rules.values import Grant, Hold, Mark

_RETRY = 1.0
"""Seconds until a renewal that failed is tried again."""


class _OneAtATime:
    """A ledger whose verbs any thread may call: one waits for the other. Work that a finalizer asks for in the middle of a
    verb, on the same thread, is done at its end."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._later: list[Callable[[], object]] = []

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._ledger, verb)

        def in_turn(*args: Any, **named: Any) -> Any:
            if self._thread == threading.get_ident():
                if verb in {"settle", "release"}:
                    self._later.append(lambda: call(*args, **named))
                    return False
                raise LedgerUnavailable("asked in the middle of another question", self._ledger.name)
            with self._lock:
                self._thread = threading.get_ident()
                try:
                    return call(*args, **named)
                finally:
                    while self._later:
                        with contextlib.suppress(LedgerError):
                            self._later.pop(0)()
                    self._thread = None

        return in_turn


class Leases:
    """A ledger as the runs of this process use it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.immediate: bool = ledger.ttl is None
        """The ledger never waits: it may be asked in an event loop."""
        self._interval = (ledger.ttl or 0.0) / 3
        self.ever_answered: bool = False
        self.reset_after_fork()
        forks.register(self)

    def reset_after_fork(self) -> None:
        """Start with no holds and no thread: the parent's are the parent's."""
        self._lock = threading.Lock()
        self.verbs: Ledger = cast("Ledger", _OneAtATime(self.ledger))
        self._asked: set[str] = set()
        self._held: set[str] = set()
        self._listeners: dict[str, WeakMethod[Callable[[LeaseLost], None]]] = {}
        self._attended = False

    def when_lost(self, run_id: str, callback: Callable[[LeaseLost], None]) -> None:
        """Call back (in the attendant's thread, once) if the run's hold lapses. To be said before the hold is asked for.

        `callback` is a method of the run, which is taken to be over when the object is gone.
        """
        self._listeners[run_id] = WeakMethod(callback)

    def mark(self, account: str) -> Mark:
        mark = self.verbs.mark(account)
        self.ever_answered = True
        return mark

    def sweep(self, account: str) -> int:
        return len(self.verbs.sweep(account))

    def reserve(self, hold: Hold, *, available: int | None, mark: Mark | None) -> Grant:
        if self.immediate:
            return self.verbs.reserve(hold, this_process(), available=available, mark=mark)
        # Asked first: an answer that is lost may stand for a hold that was taken, and the lease must go on. Held only once it
        # is granted: a renewal in between would not find it, and take it for lost.
        self._ask(hold.id)
        grant = self.verbs.reserve(hold, this_process(), available=available, mark=mark)
        with self._lock:
            self._asked.discard(hold.id)
            if grant.admitted:
                self._held.add(hold.id)
        return grant

    def release(self, run_id: str) -> bool:
        self._forget(run_id)
        return self.verbs.release(run_id)

    def settle(self, report: Report) -> None:
        self._forget(report.run_id)
        self.verbs.settle(report.run_id, report.account, report.to_dict())

    def _ask(self, run_id: str) -> None:
        with self._lock:
            self._asked.add(run_id)
            if self._attended:
                return
            self._attended = True
        attendant.add(self._renew, self._interval, urgent=True)

    def _forget(self, run_id: str) -> None:
        with self._lock:
            self._asked.discard(run_id)
            self._held.discard(run_id)
            self._listeners.pop(run_id, None)

    def _renew(self) -> float | None:
        with self._lock:
            if not self._held and not self._asked:
                self._attended = False
                return None
        try:
            self._give_back_vanished()
            with self._lock:
                held = list(self._held)
            lost = self.verbs.renew(this_process(), held)
        except LedgerError:
            # Perhaps a restart. Whether the lease outlived it, the ledger will say when it answers again.
            return min(_RETRY, self._interval)
        for run_id in lost:
            self._tell(run_id)
        return self._interval

    def _give_back_vanished(self) -> None:
        with self._lock:
            vanished = [run_id for run_id, listener in self._listeners.items() if listener() is None]
        for run_id in vanished:
            self.release(run_id)

    def _tell(self, run_id: str) -> None:
        with self._lock:
            listener = self._listeners.pop(run_id, None)  # once
        callback = listener() if listener else None
        if callback:
            message = "the hold lapsed while the job ran: other runs may have been admitted against the same credits"
            with contextlib.suppress(Exception):  # a callback's failure must not end the renewals of the others
                callback(LeaseLost(message, self.ledger.name, run_id))
