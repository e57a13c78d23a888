"""One verb of a ledger at a time in each process, on a connection of the process's own.

Three things are easy to get wrong here, for every ledger that keeps a connection:

- A forked child inherits its parent's connections and locks. A lock that another thread held at the fork stays locked for ever,
  and a connection is shared with the parent, so the child starts with none. What SQLite knows of its open files it knows per
  process, in memory that a fork copies: a child that inherits an open file takes locks that its *parent* has for its own. Then
  others, who do not see it, remove the write-ahead log from under it, and its holds are seen by nobody. So such a connection is
  closed in the parent before the fork, and opened anew by whoever needs it.
- The garbage collector may close a guarded generator in the middle of a verb, on the same thread, and that settles a run.
  Waiting for a turn there would wait for ever: such work is done at the end of the turn that it interrupted.
- When a turn fails after seconds of waiting, whoever queued up behind it would wait as long again, one after the other. They
  share its failure instead, and so do, where that makes sense, those who come shortly after.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import CLOCK_MONOTONIC, clock_gettime
from typing import Any, Generic, Protocol, TypeVar

from creditguard.errors import LedgerUnavailable
from creditguard.process.identity import this_process

_PATIENCE_TO_FORK = 2.0


class Connection(Protocol):
    """A connection, as far as this module cares."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)


def seconds() -> float:
    """Seconds to bound waits by, which nothing in Python freezes (test libraries patch `time.monotonic`)."""
    return clock_gettime(CLOCK_MONOTONIC)


class Turn(Generic[C]):
    """What one process has: its connection, and who uses it now."""

    def __init__(self) -> None:
        self.process: str = this_process().id
        self.lock: threading.Lock = threading.Lock()
        self.thread: int | None = None
        self.connection: C | None = None
        self.later: list[Callable[[], object]] = []
        self.failure: LedgerUnavailable | None = None
        self.failure_holds: float = 0.0

    def drop(self) -> None:
        """Close the connection; the next verb opens another."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def failed(self, error: LedgerUnavailable, cool_down: float = 0.0) -> LedgerUnavailable:
        """Remember a failure that took its time, for those who wait for this turn to end, and those who come within
        `cool_down` seconds after it. Hands it back, to be raised."""
        self.failure, self.failure_holds = error, seconds() + cool_down
        return error


class Turns(Generic[C]):
    """Hands out turns. `name`: the ledger's, for its errors. `inheritable`: whether a forked child may have its parent's
    connection, as long as it does not use it."""

    def __init__(self, name: str, *, inheritable: bool) -> None:
        self._name = name
        self._inheritable = inheritable
        self._current: list[Turn[C]] = [Turn()]
        self._forker: int | None = None
        _everyone.add(self)
        # At exit, or when the ledger is dropped: a connection that nobody closed would end in a ResourceWarning.
        weakref.finalize(self, _dispose, self._current)

    @contextmanager
    def take(self) -> Iterator[Turn[C]]:
        """Wait for the turn. The failure of the turn that was waited for is raised here too."""
        turn = self._mine()
        if turn.thread == threading.get_ident():
            raise LedgerUnavailable(
                "asked by a finalizer or signal handler in the middle of another question", self._name
            )
        arrived = seconds()
        later: list[Callable[[], object]] = []
        try:
            with turn.lock:
                if turn.failure and turn.failure_holds >= arrived:
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
        turn = self._current[0]
        if turn.process != this_process().id:
            turn = self.after_fork_in_child()  # a fork that Python was not told of
        return turn

    def before_fork(self) -> None:
        """Have nothing open that a child must not inherit, until it is made."""
        turn, me = self._current[0], threading.get_ident()
        if not self._inheritable and turn.thread != me and turn.lock.acquire(timeout=_PATIENCE_TO_FORK):
            self._forker = me
            turn.drop()

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        if self._forker == threading.get_ident():
            self._forker = None
            self._current[0].lock.release()

    def after_fork_in_child(self) -> Turn[C]:
        """Start afresh. The parent's turn is the parent's."""
        inherited, turn = self._current[0], Turn[C]()
        locked_here = self._forker == threading.get_ident()
        self._current[0], self._forker = turn, None
        if self._inheritable or locked_here:
            return turn
        if inherited.lock.locked():
            # In the middle of a verb, for all the patience: it can neither be closed here nor opened a second time.
            _abandoned.append(inherited.connection)
            turn.failed(LedgerUnavailable("was in use when this process was forked", self._name), float("inf"))
        elif inherited.connection is not None:
            inherited.connection.close()
        return turn


_everyone: weakref.WeakSet[Turns[Any]] = weakref.WeakSet()
_abandoned: list[object] = []


def _before_fork() -> None:
    for turns in list(_everyone):
        turns.before_fork()


def _after_fork_in_parent() -> None:
    for turns in list(_everyone):
        turns.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for turns in list(_everyone):
        turns.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _dispose(current: list[Turn[C]]) -> None:
    turn = current[0]
    # A daemon thread may be in the middle of a verb.
    if turn.process == this_process().id and turn.lock.acquire(timeout=1.0):
        turn.drop()
        turn.lock.release()
