"""The emitter: a thread of its own for events, so that a sink that hangs holds up neither a job nor a ledger.

An event goes out in a copy of the context of whoever entered the guard: structlog's context variables and Prefect's run log see
what they would see there. What is put in behind an event comes after it: so a caller is woken when its events are out.
"""

from __future__ import annotations

import _thread
import logging
from collections.abc import Callable
from contextvars import Context
from functools import partial
from queue import SimpleQueue

from creditguard.process.background import seconds
from creditguard.rules.events import Event
from creditguard.rules.ports import EventSink

_MOST_WAITING = 10_000
_STUCK_AFTER = 5.0
_MOST_STUCK = 2


class Emitter:
    """Events on their way out, in order."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._since = 0.0
        """Since when the thread is at one call; 0 while it waits for the next."""
        self._left_behind = 0
        self._threads: dict[SimpleQueue[Callable[[], object]], int] = {}

    def start(self) -> None:
        """Start the thread, unless it runs. Raises RuntimeError when the system has no thread to give."""
        if not self._threads:
            _thread.start_new_thread(self._run, (self._calls,))

    def works_here(self) -> bool:
        """Whether the calling thread is the one."""
        return _thread.get_ident() in self._threads.values()

    def emit(self, context: Context, sink: EventSink, event: Event) -> None:
        """Hand one event over."""
        if self._since and seconds() - self._since > _STUCK_AFTER:
            self._leave_behind()
        if self._calls.qsize() < _MOST_WAITING:
            self._calls.put(partial(_emit, context, sink, event))

    def after(self, call: Callable[[], object]) -> None:
        """Make a quick call when the events before it are out."""
        self._calls.put(call)

    def idle(self) -> bool:
        """Whether nothing waits to go out."""
        return not self._since and self._calls.empty()

    def _run(self, calls: SimpleQueue[Callable[[], object]]) -> None:
        me = _thread.get_ident()
        if self._threads.setdefault(calls, me) != me:
            return  # two have started it at once
        while True:
            call = calls.get()
            self._since = seconds()
            call()
            call = None  # type: ignore[assignment]  # else it would keep alive what it did last
            if calls is not self._calls:
                return  # it was left behind
            self._since = 0.0

    def _leave_behind(self) -> None:
        """A sink hangs. Its thread is left alone with it, and what waited goes out by another."""
        if self._left_behind >= _MOST_STUCK:
            return
        stuck, fresh = self._calls, SimpleQueue[Callable[[], object]]()
        try:
            _thread.start_new_thread(self._run, (fresh,))
        except RuntimeError:
            return
        self._left_behind += 1
        self._since, self._calls = 0.0, fresh
        while not stuck.empty():
            fresh.put(stuck.get())


def _emit(context: Context, sink: EventSink, event: Event) -> None:
    try:
        context.copy().run(sink.emit, event)  # a copy, for a context can be entered by one thread at a time
    except Exception:
        logging.getLogger("creditguard").debug("an event could not be logged", exc_info=True)
