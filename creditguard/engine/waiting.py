"""How a caller waits for the engine: a thread on a queue of its own, a task on an event of its loop (asyncio's or trio's).

A wake is only a hint: what was delivered is the truth, and every wait ends by itself. A caller may vanish at any instant (a signal
handler that raises, a cancelled task); then nobody looks at the ticket any more, and nothing else happens.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from creditguard.engine.service import Call, Service
from creditguard.process.background import Wake, seconds

T = TypeVar("T")

SLICE = 0.5
"""Seconds. A caller whose answer has been there for so long goes on, whatever still hangs (a sink, a ledger that is to file)."""


_UNDER_WAY = 0.05
"""Seconds for which a call that an event loop has been asked to make is relied on to come."""


class NoAnswerError(Exception):
    """Nothing was delivered in time."""


class Waiter(Protocol):
    """What wakes one waiting caller. `wake` may be called from any thread, at any time, any number of times."""

    def wake(self) -> None: ...


def _nobody() -> None:
    """Nobody waits."""


class Ticket(Generic[T]):
    """What a caller waits for: an outcome, and then the end of all that is to happen before it goes on."""

    def __init__(self) -> None:
        self._outcome: tuple[T | None, BaseException | None] | None = None
        self._finished = False
        self._waiter: Callable[[], Waiter | None] = _nobody
        """A weak reference: the engine has the ticket, and must not keep a caller alive who would be gone otherwise."""

    @property
    def delivered(self) -> bool:
        """Whether the outcome is there."""
        return self._outcome is not None

    def deliver(self, result: T | None, error: BaseException | None = None) -> None:
        """Put the outcome there; the first one counts."""
        if self._outcome is None:
            self._outcome = result, error

    def finish(self) -> None:
        """There is nothing more to wait for."""
        self._finished = True
        waiter = self._waiter()
        if waiter:
            waiter.wake()

    def outcome(self) -> T:
        """What was delivered: returned or raised. Raises NoAnswerError when there is nothing."""
        if self._outcome is None:
            raise NoAnswerError
        result, error = self._outcome
        if error is not None:
            raise error
        return cast("T", result)

    @property
    def failure(self) -> BaseException | None:
        """The exception that was delivered in place of an outcome."""
        return self._outcome[1] if self._outcome else None

    def wait(self, at_most: float) -> None:
        """Wait in a thread until all is finished; or until the outcome has been there for a slice, or the time is up."""
        waiter = Wake()
        self._waiter = ref(waiter)
        steps = _Steps(self, at_most)
        while not self._finished and (pause := steps.pause()):
            waiter.wait(pause)

    async def await_(self, at_most: float) -> None:
        """As `wait`, in a task."""
        waiter = _task_waiter()
        self._waiter = ref(waiter)
        steps = _Steps(self, at_most)
        while not self._finished and (pause := steps.pause()):
            await waiter.wait(pause)
            if not self._finished:
                waiter.loop.flush()  # what another task was interrupted at may have been ours, too


class _Steps:
    """How long to wait for the next wake: a slice at most, and not at all when there is nothing more to wait for."""

    def __init__(self, ticket: Ticket[Any], at_most: float) -> None:
        self._ticket = ticket
        self._ends = seconds() + at_most
        self._seen = 0.0

    def pause(self) -> float:
        now = seconds()
        if self._ticket.delivered:
            self._seen = self._seen or now
            return max(self._seen + SLICE - now, 0.0)
        return max(min(self._ends - now, SLICE), 0.0)


class _Loop:
    """What goes to and fro between one event loop and the engine, as much at a time as there is.

    What the loop calls may be interrupted, too, and then what it was called for is left there. So nobody relies for longer than
    a moment on a call that is under way.
    """

    def __init__(
        self, loop: Any, soon: Callable[[Any, Call], object], soon_from_here: Callable[[Any, Call], object]
    ) -> None:
        self._loop = ref(loop)
        self._soon = soon
        self._soon_from_here = soon_from_here
        self._service: Service | None = None
        self._wakes: deque[Callable[[], _AsyncioWaiter | _TrioWaiter | None]] = deque()
        self._calls: deque[Call] = deque()
        self._waking_until = self._sending_until = 0.0

    def wake(self, waiter: _AsyncioWaiter | _TrioWaiter) -> None:
        """Have the waiter's event set in the loop; from any thread."""
        self._wakes.append(ref(waiter))
        now, loop = seconds(), self._loop()
        if loop is not None and now >= self._waking_until:
            self._waking_until = now + _UNDER_WAY
            try:
                self._soon(loop, self._deliver)
            except RuntimeError:
                self._waking_until = 0.0  # the loop is closed, and its tasks with it

    def _deliver(self) -> None:
        self._waking_until = 0.0
        while self._wakes:
            waiter = self._wakes.popleft()()
            if waiter:
                waiter.event.set()

    def send(self, service: Service, call: Call) -> None:
        """Hand a call to the service threads, together with those of all tasks that do so before the loop comes round."""
        self._service = service
        self._calls.append(call)
        now = seconds()
        if now >= self._sending_until:
            self._sending_until = now + _UNDER_WAY
            self._soon_from_here(self._loop(), self.flush)

    def flush(self) -> None:
        """Hand over what there is."""
        self._sending_until = 0.0
        if self._calls and self._service:
            self._service.put(self._take_over)

    def _take_over(self) -> None:
        """In a service thread."""
        calls = []
        try:
            while self._calls:
                calls.append(self._calls.popleft())
        except IndexError:
            pass  # another service thread took it
        if len(calls) == 1:
            calls[0]()
        elif self._service:
            self._service.make_all(calls)


_loops: WeakKeyDictionary[Any, _Loop] = WeakKeyDictionary()


def _loop() -> _Loop:
    """What belongs to the running event loop."""
    if in_trio():
        import trio

        token = trio.lowlevel.current_trio_token()
        soon = trio.lowlevel.TrioToken.run_sync_soon
        return _loops.get(token) or _loops.setdefault(token, _Loop(token, soon, soon))
    import asyncio

    loop = asyncio.get_running_loop()
    return _loops.get(loop) or _loops.setdefault(loop, _Loop(loop, _soon_from_anywhere, _soon_from_here))


def _soon_from_anywhere(loop: Any, call: Call) -> None:
    loop.call_soon_threadsafe(call)


def _soon_from_here(loop: Any, call: Call) -> None:
    loop.call_soon(call)


def sender(service: Service) -> Callable[[Call], None]:
    """How a task hands a call to the service threads."""
    return partial(_loop().send, service)


class _AsyncioWaiter:
    def __init__(self) -> None:
        import asyncio

        self._later = asyncio.get_running_loop().call_later
        self.loop = _loop()
        self.event = asyncio.Event()

    def wake(self) -> None:
        self.loop.wake(self)

    async def wait(self, at_most: float) -> None:
        timer = self._later(at_most, self.event.set)
        try:
            await self.event.wait()
        finally:
            timer.cancel()
        self.event.clear()


class _TrioWaiter:
    def __init__(self) -> None:
        import trio

        self._trio = trio
        self.loop = _loop()
        self.event = trio.Event()

    def wake(self) -> None:
        self.loop.wake(self)

    async def wait(self, at_most: float) -> None:
        with self._trio.move_on_after(at_most):
            await self.event.wait()
        self.event = self._trio.Event()


def in_trio() -> bool:
    """Whether the running task is trio's."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False  # loaded, but it is not what runs here
    return True


def shielded() -> AbstractContextManager[object]:
    """A stretch that a scope of trio or anyio which is cancelled already does not break off again. A native cancellation does."""
    if in_trio():
        import trio

        return trio.CancelScope(shield=True)
    anyio = sys.modules.get("anyio")
    return cast("AbstractContextManager[object]", anyio.CancelScope(shield=True)) if anyio else nullcontext()


def _task_waiter() -> _AsyncioWaiter | _TrioWaiter:
    return _TrioWaiter() if in_trio() else _AsyncioWaiter()
