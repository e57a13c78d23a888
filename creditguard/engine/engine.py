"""The engine of this process: its threads, and what they keep between runs. A forked child has one of its own, and starts anew.

Callers only hand a flow over, and wait. The threads are daemons; at the interpreter's end what is still open is closed, and what is
owed gets a bounded time.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from creditguard.engine.emitter import Emitter
from creditguard.engine.leases import Leases
from creditguard.engine.readings import Readings
from creditguard.engine.service import Call, Service
from creditguard.engine.waiting import Ticket
from creditguard.engine.watch import Watch
from creditguard.process.background import Timer, Wake, seconds
from creditguard.rules.ports import BalanceSource, Ledger

if TYPE_CHECKING:
    from creditguard.engine.lifecycle import Lifecycle

_PATIENCE_AT_EXIT = 5.0
_PATIENCE_TO_FORK = 2.0
_LONGEST_FORK = 6.0
_LONGEST_IMPORT = 5.0
_CLOSING = "creditguard closes"
_WITHOUT = 60.0
"""Seconds for which the default ledger is not tried again when it could not be used."""

T = TypeVar("T")


class Engine:
    """Threads, ledgers, readings and open runs of one process."""

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.service: Service = Service()
        self.timer: Timer = Timer()
        self.emitter: Emitter = Emitter(self.service)
        self.runs: dict[str, Lifecycle] = {}
        """The runs that have been handed over and have no report yet."""
        self.readings_due: dict[int, float] = {}
        """By service thread: until when the reading that it is at has to be back."""
        self.readings_waiting: deque[list[Call]] = deque()
        """Readings that start when one that is under way comes back: a list of one each, or of none if it has waited long enough."""
        self._without_default_ledger_until = 0.0
        self.warm: set[str] = set()
        """The kinds of ledger for which all that guards import late has been imported."""
        self._leases: dict[Hashable, Leases] = {}
        self._readings: dict[Hashable, Readings] = {}
        self._watches: dict[Readings, Watch] = {}
        self._ends: float | None = None
        """Until when this process waits at its end, in which a worker of multiprocessing comes here twice."""
        process = sys.modules.get("multiprocessing.process")
        if process and process.parent_process():
            # Before Python 3.13 a worker ends without exit handlers, after finalizers of its own; since then it has dropped ours.
            sys.modules["multiprocessing.util"].Finalize(None, self._close_after_others, exitpriority=0)
            atexit.register(_at_exit)

    def start(self) -> None:
        """Start the threads, unless they run. Raises RuntimeError when the system has none to give: then try again later."""
        self.timer.start()
        self.service.start()

    @property
    def without_default_ledger(self) -> bool:
        """The default ledger cannot be used here (no home, a read-only container): it is done without."""
        return seconds() < self._without_default_ledger_until

    def do_without_default_ledger(self) -> None:
        """It could not be used. It is tried again after a while, for it may only have been busy."""
        self._without_default_ledger_until = seconds() + _WITHOUT

    def elsewhere(self, work: Callable[[], T]) -> T:
        """Do in a service thread what imports modules: a signal handler in this thread would find half of a module otherwise."""
        try:
            self.start()
        except RuntimeError:
            return work()  # whoever is admitted needs a thread, and will say that there is none
        if self.cannot_be_waited_for():
            return work()
        ticket: Ticket[T] = Ticket()
        self.service.put(partial(_answer, work, ticket))
        ticket.wait(_LONGEST_IMPORT)
        if ticket.delivered:
            return ticket.outcome()
        return work()  # all service threads hang: the policy decides about that

    def cannot_be_waited_for(self) -> bool:
        """Whether this is a finalizer that runs in one of the engine's own threads, which must not wait for another, or when
        the interpreter is at its very end, where they do not run any more."""
        return sys.is_finalizing() or self.service.works_here() or self.timer.works_here()

    # One of each for a process. Made without a lock: if two make one at once, the first to be put there serves both.

    def leases_on(self, key: Hashable, make: Callable[[], Ledger], patience: float) -> Leases:
        """The ledger that is known by `key`."""
        return self._leases.get(key) or self._leases.setdefault(key, Leases(make(), self, patience))

    def readings_of(self, source: BalanceSource, leases: Leases, account: str, timeout: float) -> Readings:
        """The shared readings of an account."""
        key = source, leases, account, timeout
        return self._readings.get(key) or self._readings.setdefault(key, Readings(source, leases, account, timeout))

    def watch_of(self, readings: Readings) -> Watch:
        """The one watch of these readings."""
        return self._watches.get(readings) or self._watches.setdefault(readings, Watch(readings))

    def later(self, delay: float, call: Call) -> None:
        """Make the call in `delay` seconds, in a service thread."""
        self.timer.later(delay, partial(self.service.put, call))

    def repeat(self, call: Callable[[], float | None], delay: float) -> None:
        """Make the call in `delay` seconds, in a service thread, and again after as many seconds as it says; None for never."""

        def work() -> None:
            after = call()
            if after is not None:
                self.repeat(call, after)

        self.later(delay, work)

    def settle_open_runs(self, within: float) -> None:
        """Close all open runs as cancelled, with one last reading each, all of it within so many seconds."""
        ends = seconds() + within
        runs = list(self.runs.values())
        for run in runs:
            run.end_early(within)
        for run in runs:
            if run.is_admitted:
                run.leaving.wait(max(ends - seconds(), 0.0))

    def close(self) -> None:
        """The interpreter's end: no run stays open, and what is owed is given once more, within a bound."""
        if self.pid != os.getpid():
            return
        ends = self._ends = self._ends or seconds() + _PATIENCE_AT_EXIT
        for run in list(self.runs.values()):  # those that are being left have a moment for their last reading
            self.later(_PATIENCE_AT_EXIT / 2 if run.over else 0.0, run.vanish)
        for leases in list(self._leases.values()):
            self.service.put(leases.hurry)
        while seconds() < ends and (
            self.runs or not self.emitter.idle() or any(each.owes for each in self._leases.values())
        ):
            Wake().wait(0.005)
        for go_on in self.release_connections(max(ends - seconds(), 0.1)):
            go_on()  # for guards in later exit handlers

    def _close_after_others(self) -> None:
        """Close when the threads have ended that the process waits for: it waits for this one, too."""

        def wait_and_close() -> None:
            for thread in threading.enumerate():
                if not thread.daemon and thread is not threading.main_thread() and thread.name != _CLOSING:
                    thread.join()
            self.close()

        with suppress(RuntimeError):  # the system has no thread to give
            threading.Thread(target=wait_and_close, name=_CLOSING, daemon=False).start()

    def release_connections(self, within: float) -> list[Call]:
        """Close the ledgers' connections between two verbs, and have verbs wait until each of the calls that are returned has been
        made, or for some seconds. A ledger that cannot be had within so many seconds is passed over."""
        taken: list[Call] = []
        if not any(leases.opened for leases in list(self._leases.values())):
            return taken
        done = Wake()
        self.service.put(partial(self._take_desks, seconds() + within, taken, done))
        done.wait(within)
        return taken

    def _take_desks(self, ends: float, taken: list[Call], done: Wake) -> None:
        for leases in list(self._leases.values()):
            if leases.opened and not leases.desk.hangs(10) and leases.desk.take(ends - seconds()):
                leave = partial(_once, [leases.desk.leave])
                taken.append(leave)
                self.timer.later(_LONGEST_FORK, leave)  # whoever asked may have been interrupted
                if seconds() >= ends:
                    leave()  # and has gone on by now
                    break
                with suppress(Exception):  # a ledger of somebody else's
                    leases.ledger.close()
        done.wake()


def _answer(work: Callable[[], T], ticket: Ticket[T]) -> None:
    try:
        ticket.deliver(work())
    except BaseException as error:
        ticket.deliver(None, error)
    ticket.finish()


def _once(calls: list[Call]) -> None:
    try:
        call = calls.pop()
    except IndexError:
        return
    call()


_engines: dict[int, Engine] = {}


def engine() -> Engine:
    """The engine of this process."""
    pid = os.getpid()
    return _engines.get(pid) or _engines.setdefault(pid, Engine())


_forking: dict[int, list[Call]] = {}
"""By the thread that forks."""


def _before_fork() -> None:
    found = _engines.get(os.getpid())
    if found:
        _forking[_thread.get_ident()] = found.release_connections(_PATIENCE_TO_FORK)


def _after_fork_in_parent() -> None:
    for go_on in _forking.pop(_thread.get_ident(), ()):
        go_on()


def _after_fork_in_child() -> None:
    _forking.clear()
    _engines.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@atexit.register
def _at_exit() -> None:
    found = _engines.get(os.getpid())
    if found:
        found.close()
