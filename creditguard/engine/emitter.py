"""Events on their way out, one after the other, by whichever service thread has one: a sink that hangs keeps that thread, and
holds up neither a job nor a ledger.

An event goes out in a copy of the context of whoever entered the guard: structlog's context variables and Prefect's run log see
what they would see there. A call that is put in behind an event comes after it: so a caller is woken when its events are out.
"""

from __future__ import annotations

import _thread
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial

from creditguard.engine.service import Call, Service
from creditguard.process.background import seconds
from creditguard.rules.events import Event
from creditguard.rules.ports import EventSink

_MOST_WAITING = 10_000
_STUCK_AFTER = 2.0
_MOST_STUCK = 2
_NEVER = float("inf")


class _Line:
    """What waits, and the right to let it out. `since`: since when one is on its way out."""

    def __init__(self) -> None:
        self.waiting: deque[Call] = deque()
        self.free = _thread.allocate_lock()
        self.since = _NEVER


class Emitter:
    """The events of this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._line = _Line()
        self._stuck = 0
        self._replacing = _thread.allocate_lock()  # taken by service threads alone

    def emit(self, context: Context, sink: EventSink, event: Event) -> None:
        """Have one event go out. From any thread."""
        line = self._line
        if len(line.waiting) < _MOST_WAITING:
            line.waiting.append(partial(_emit, context, sink, event))
            self._service.put(self.let_out)

    def emit_now(self, context: Context, sink: EventSink, event: Event) -> None:
        """As `emit`, for service threads: it goes out at once, if none is on its way."""
        line = self._line
        if len(line.waiting) < _MOST_WAITING:
            line.waiting.append(partial(_emit, context, sink, event))
            self._let_out_soon()

    def after(self, call: Callable[[], object]) -> None:
        """Make a quick call when the events before it are out. For service threads."""
        line = self._line
        if self._stuck >= _MOST_STUCK and seconds() - line.since > _STUCK_AFTER:
            call()  # as many sinks hang as are left behind: whoever waits for an event to be out waits in vain
            return
        line.waiting.append(call)
        self._let_out_soon()

    def _let_out_soon(self) -> None:
        """Here and now, unless others wait for this thread: they shall not wait for a sink."""
        if self._service.has_more():
            self._service.put(self.let_out)
        else:
            self.let_out()

    def idle(self) -> bool:
        """Whether nothing waits to go out."""
        line = self._line
        return not line.waiting and not line.free.locked()

    def let_out(self) -> None:
        """Let out what waits. In a service thread."""
        line = self._line
        while line.waiting and line.free.acquire(blocking=False):
            try:
                while line.waiting:
                    call = line.waiting.popleft()
                    line.since = seconds()
                    call()
            except IndexError:
                pass  # it was left behind
            finally:
                line.since = _NEVER
                line.free.release()
            if line is not self._line:
                with self._replacing:
                    self._stuck -= 1  # it has come back
        if seconds() - line.since > _STUCK_AFTER:
            self._leave_behind(line)

    def _leave_behind(self, line: _Line) -> None:
        """A sink hangs. What waits behind it goes out all the same; its own thread goes on with an empty line, should it return."""
        with self._replacing:
            if line is not self._line or self._stuck >= _MOST_STUCK:
                return
            self._stuck += 1
            self._line = _Line()
            self._line.waiting.extend(line.waiting)
            line.waiting.clear()
        self.let_out()


def _emit(context: Context, sink: EventSink, event: Event) -> None:
    try:
        context.copy().run(sink.emit, event)  # a copy, for a context can be entered by one thread at a time
    except BaseException:
        with suppress(BaseException):
            logging.getLogger("creditguard").debug("an event could not be logged", exc_info=True)
