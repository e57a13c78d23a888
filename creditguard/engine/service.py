"""The service threads: daemon threads of the process that make the calls put into one queue. No signal handler, cancellation
or finalizer of the host runs half way through what they do.

`put` may be called from anywhere, a finalizer or a signal handler included. A call may take as long as it likes: another thread
takes the next one. So the number of threads is that of the calls that wait for something at the same time, and one to spare.
"""

from __future__ import annotations

import _thread
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeAlias

Call: TypeAlias = Callable[[], object]

_MOST = 32
_SPARE = 2
"""Idle threads that are kept."""


class Service:
    """The threads, and their queue."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self.put: Callable[[Call], None] = self._calls.put
        self._counting = _thread.allocate_lock()  # taken by service threads alone
        self._threads: set[int] = set()
        self._idle = 0
        self._with_more: set[int] = set()

    def start(self) -> None:
        """Start the first thread, unless there is one. Raises RuntimeError when the system has none to give."""
        if not self._threads:
            _thread.start_new_thread(self._serve, ())

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
        return not self._calls.empty()

    def works_here(self) -> bool:
        """Whether the calling thread is one of these."""
        return _thread.get_ident() in self._threads

    def _serve(self) -> None:
        me = _thread.get_ident()
        self._threads.add(me)
        threading.current_thread().name = "creditguard"  # for logs and debuggers
        while True:
            with self._counting:
                if self._idle >= _SPARE:
                    self._threads.discard(me)
                    return
                self._idle += 1
            call = self._calls.get()
            with self._counting:
                self._idle -= 1
                another = not self._idle and len(self._threads) < _MOST
            if another:
                self._start_another()
            if call:
                _make(call)
            call = None  # else an idle thread would keep alive what it did last

    def _start_another(self) -> None:
        try:
            _thread.start_new_thread(self._serve, ())
        except RuntimeError:
            pass  # none to be had now: this one takes the next call when it is through with this


def _make(call: Call) -> None:
    try:
        call()
    except BaseException:
        with suppress(
            BaseException
        ):  # a filter or a handler of the host's that raises must not take the thread with it
            logging.getLogger("creditguard").exception("a bug in creditguard")
