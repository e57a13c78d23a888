"""One verb of a ledger at a time in each process, on a connection of the process's own.

Three things are easy to get wrong here, for every ledger that keeps a connection:

- A forked child inherits its parent's connections and locks. It must neither use nor close those connections (a goodbye on a
  shared socket ends the parent's session; SQLite forbids both), and a lock that another thread held at the fork stays locked
  for ever. So everything hangs on the process's identity, and what was inherited is left alone, for good.
- The garbage collector may close a guarded generator in the middle of a verb, on the same thread, and that settles a run.
  Waiting for a turn there would wait for ever: such work is done at the end of the turn that it interrupted.
- When a turn fails after seconds of waiting, whoever queued up behind it would wait as long again, one after the other. They
  share its failure instead. `cool_down` extends that to those who come within so many seconds after it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import CLOCK_MONOTONIC, clock_gettime
from typing import Generic, Protocol, TypeVar

from creditguard.errors import LedgerUnavailable
from creditguard.processes import this_process


class Closable(Protocol):
    """A connection, as far as this module cares."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


def seconds() -> float:
    """Seconds to bound waits by, which nothing in Python freezes (test libraries patch `time.monotonic`)."""
    return clock_gettime(CLOCK_MONOTONIC)


class Turn(Generic[C]):
    """What one process has: its connection, and who uses it now."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: int | None = None
        self.connection: C | None = None
        self.later: list[Callable[[], object]] = []
        self.failure: LedgerUnavailable | None = None
        self.failed_at = 0.0

    def drop(self) -> None:
        """Close the connection; the next verb opens another."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def failed(self, error: LedgerUnavailable) -> LedgerUnavailable:
        """Remember a failure that took its time, for those who wait for this turn to end. Hands it back, to be raised."""
        self.failure, self.failed_at = error, seconds()
        return error


class Turns(Generic[C]):
    """Hands out turns. `cool_down`: for how many seconds a failure answers those who come after it."""

    def __init__(self, name: str, cool_down: float = 0.0) -> None:
        self._name = name
        self._cool_down = cool_down
        self._by_process: dict[str, Turn[C]] = {}
        # At exit, or when the ledger is dropped: a connection that nobody closed would end in a ResourceWarning.
        weakref.finalize(self, _dispose, self._by_process)

    @contextmanager
    def take(self) -> Iterator[Turn[C]]:
        """Wait for the turn. The failure of the turn that was waited for is raised here too."""
        turn = self._mine()
        if turn.thread == threading.get_ident():
            raise LedgerUnavailable("asked by a finalizer or signal handler in the middle of another question", self._name)
        arrived = seconds()
        later: list[Callable[[], object]] = []
        try:
            with turn.lock:
                if turn.failure and turn.failed_at + self._cool_down >= arrived:
                    raise LedgerUnavailable(turn.failure.message, self._name)
                turn.thread = threading.get_ident()
                try:
                    yield turn
                finally:
                    turn.thread = None
                    later, turn.later = turn.later, later
        finally:
            for work in later:
                try:
                    work()
                except LedgerUnavailable:
                    pass  # whoever asked for it is gone

    def interrupts(self, work: Callable[[], object]) -> bool:
        """Whether this thread is in the middle of a turn already. If so, the work is done when that turn ends."""
        turn = self._mine()
        if turn.thread != threading.get_ident():
            return False
        turn.later.append(work)
        return True

    def close(self) -> None:
        """Close this process's connection."""
        turn = self._mine()
        if turn.thread != threading.get_ident():
            with turn.lock:
                turn.drop()

    def _mine(self) -> Turn[C]:
        me = this_process().id
        return self._by_process.get(me) or self._by_process.setdefault(me, Turn())


def _dispose(by_process: dict[str, Turn[C]]) -> None:
    me = this_process().id
    for process, turn in by_process.items():
        if process == me:
            if turn.lock.acquire(timeout=1.0):  # a daemon thread may be in the middle of a verb
                turn.drop()
                turn.lock.release()
        elif turn.connection is not None:
            _leak(turn.connection)


def _leak(thing: object) -> None:
    """Keep an inherited connection from ever being finalized, which would close it."""
    try:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    except (ImportError, AttributeError):
        pass  # another Python: its finalizers run at the end, if at all
