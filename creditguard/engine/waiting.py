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
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from creditguard.engine.service import Call, Service
from creditguard.process.background import seconds

T = TypeVar("T")

SLICE = 0.5
"""Seconds. A caller whose answer has been there for so long goes on, whatever still hangs (a sink, a ledger that is to file)."""


class NoAnswerError(Exception):
    """Nothing was delivered in time."""


class Waiter(Protocol):
    """What wakes one waiting caller. `wake` may be called from any thread, at any time, any number of times."""

    def wake(self) -> None: ...


class Ticket(Generic[T]):
    """What a caller waits for: an outcome, and then the end of all that is to happen before it goes on."""

    def __init__(self) -> None:
        self._outcome: tuple[T | None, BaseException | None] | None = None
        self._finished = False
        self._waiter: Waiter | None = None

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
        if self._waiter:
            self._waiter.wake()

    def outcome(self) -> T:
        """What was delivered: returned or raised. Raises NoAnswerError when there is nothing."""
        if self._outcome is None:
            raise NoAnswerError
        result, error = self._outcome
        if error is not None:
            raise error
        return cast("T", result)

    def wait(self, at_most: float) -> None:
        """Wait in a thread until all is finished; or until the outcome has been there for a slice, or the time is up."""
        waiter = self._waiter = _ThreadWaiter()
        steps = _Steps(self, at_most)
        while not self._finished and (pause := steps.pause()):
            waiter.wait(pause)

    async def await_(self, at_most: float) -> None:
        """As `wait`, in a task."""
        waiter = self._waiter = _task_waiter()
        steps = _Steps(self, at_most)
        while not self._finished and (pause := steps.pause()):
            await waiter.wait(pause)


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


class _ThreadWaiter:
    def __init__(self) -> None:
        self._wakes: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        self._wakes.put(None)

    def wait(self, at_most: float) -> None:
        try:
            self._wakes.get(timeout=at_most)
        except Empty:
            pass


class _Loop:
    """What goes to and fro between one event loop and the engine, as much at a time as there is."""

    def __init__(self, soon: Callable[[Callable[[], object]], object], soon_from_here: Callable[..., object]) -> None:
        self._soon = soon
        self._soon_from_here = soon_from_here
        self._wakes: deque[Call] = deque()
        self._calls: deque[Call] = deque()
        self._waking = self._sending = False

    def wake(self, call: Call) -> None:
        """Make a call in the loop; from any thread."""
        self._wakes.append(call)
        if not self._waking:
            self._waking = True
            try:
                self._soon(self._deliver)
            except RuntimeError:
                self._waking = False  # the loop is closed, and its tasks with it

    def _deliver(self) -> None:
        self._waking = False
        while self._wakes:
            self._wakes.popleft()()

    def send(self, service: Service, call: Call) -> None:
        """Hand a call to the service threads, together with those of all tasks that do so before the loop comes round."""
        self._calls.append(call)
        if not self._sending:
            self._sending = True
            self._soon_from_here(partial(self._flush, service))

    def _flush(self, service: Service) -> None:
        self._sending = False
        calls = list(self._calls)
        self._calls.clear()
        if len(calls) == 1:
            service.put(calls[0])
        elif calls:
            service.put(partial(service.make_all, calls))


_loops: WeakKeyDictionary[Any, _Loop] = WeakKeyDictionary()


def _loop() -> _Loop:
    """What belongs to the running event loop."""
    if in_trio():
        import trio

        token = trio.lowlevel.current_trio_token()
        return _loops.get(token) or _loops.setdefault(token, _Loop(token.run_sync_soon, token.run_sync_soon))
    import asyncio

    loop = asyncio.get_running_loop()
    return _loops.get(loop) or _loops.setdefault(loop, _Loop(loop.call_soon_threadsafe, loop.call_soon))


def sender(service: Service) -> Callable[[Call], None]:
    """How a task hands a call to the service threads."""
    return partial(_loop().send, service)


class _AsyncioWaiter:
    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._wakes = _loop()
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._wakes.wake(self._event.set)

    async def wait(self, at_most: float) -> None:
        timer = self._loop.call_later(at_most, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()
        self._event.clear()


class _TrioWaiter:
    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._wakes = _loop()
        self._event = trio.Event()

    def wake(self) -> None:
        self._wakes.wake(self._set)

    def _set(self) -> None:
        self._event.set()

    async def wait(self, at_most: float) -> None:
        with self._trio.move_on_after(at_most):
            await self._event.wait()
        self._event = self._trio.Event()


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
