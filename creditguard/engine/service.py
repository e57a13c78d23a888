"""The service threads: daemon threads of the process that make the calls put into one queue. No signal handler, cancellation
or finalizer of the host runs half way through what they do.

`put` may be called from anywhere, a finalizer or a signal handler included. A call may take as long as it likes: another thread
takes the next one. So the number of threads is that of the calls that wait for something at the same time, and one to spare.

Each idle thread waits on a lock of its own, and `put` wakes one of them: whoever waits in a SimpleQueue together is woken together
(CPython before 3.13), for one to find that there is nothing for it. A caller that is interrupted in the middle of `put` may leave a
call for which nobody was woken; the next call that is put in wakes a thread for both, and who was interrupted puts one in by the
timer (`Timer.at_once`).
"""

from __future__ import annotations

import _thread
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeAlias

from creditguard.process.background import Wake

Call: TypeAlias = Callable[[], object]

_MOST = 32
_SPARE = 2
"""Idle threads that are kept."""
_LONGEST = 3600.0
"""Seconds for which an idle thread sleeps at once: no wait can be endless."""


class Service:
    """The threads, and their queue."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._idle: list[Wake] = []
        """Those of the threads that wait; the last one is woken first."""
        self._counting = _thread.allocate_lock()  # taken by service threads alone
        self._threads: set[int] = set()
        self._is_started = False
        self._lacks_one = False
        """The system had no thread to give when one was wanted."""
        self._with_more: set[int] = set()

    def start(self) -> None:
        """Start the first thread, unless there is one. Raises RuntimeError when the system has none to give."""
        if not self._is_started:
            _thread.start_new_thread(self._serve, ())
            self._is_started = True

    def put(self, call: Call) -> None:
        """Have the call made by a service thread."""
        self._calls.append(call)
        self._wake_one()
        if self._lacks_one:
            self._start_another()

    def make_all(self, calls: Iterable[Call]) -> None:
        """Make the calls one after the other. In a service thread, which `has_more` meanwhile."""
        me = _thread.get_ident()
        self._with_more.add(me)
        try:
            for call in calls:
                _make(call)
        finally:
            self._with_more.discard(me)

    def has_more(self) -> bool:
        """Whether this thread has more calls in hand: then it must leave to others what takes long."""
        return _thread.get_ident() in self._with_more

    def busy(self) -> bool:
        """Whether calls wait for a thread."""
        return bool(self._calls)

    def works_here(self) -> bool:
        """Whether the calling thread is one of these."""
        return _thread.get_ident() in self._threads

    def _serve(self) -> None:
        me = _thread.get_ident()
        self._threads.add(me)
        threading.current_thread().name = "creditguard"  # for logs and debuggers
        wake = Wake()
        while self._is_wanted(wake):
            if not self._calls:  # none was put in before this thread could be seen to wait
                wake.wait(_LONGEST)
            with self._counting:
                self._idle.remove(wake)
            while self._calls:
                self._make_next()
        self._threads.discard(me)
        # Before Python 3.12 a thread that `threading` has not started stays on its list of those alive.
        vars(threading).get("_active", {}).pop(me, None)

    def _is_wanted(self, wake: Wake) -> bool:
        with self._counting:
            if len(self._idle) >= _SPARE:
                return False
            self._idle.append(wake)
            return True

    def _make_next(self) -> None:
        try:
            call = self._calls.popleft()
        except IndexError:
            return  # another thread took it
        if self._calls:
            self._wake_one()
        if not self._idle and len(self._threads) < _MOST:
            self._start_another()
        _make(call)

    def _wake_one(self) -> None:
        for wake in self._idle[-1:]:
            wake.wake()

    def _start_another(self) -> None:
        try:
            _thread.start_new_thread(self._serve, ())
        except RuntimeError:
            # Those that there are take the next call when they are through with theirs; or `put` gets one then.
            self._lacks_one = True
        else:
            self._lacks_one = False


def _make(call: Call) -> None:
    try:
        call()
    except BaseException:
        with suppress(BaseException):  # a filter of the host's log that raises must not take the thread with it
            logging.getLogger("creditguard").exception("a bug in creditguard")
