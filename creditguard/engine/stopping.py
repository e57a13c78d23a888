"""What stops a job: callbacks, an exception at its next checkpoint, and the cancellation of an asynchronous one from outside.

A job is stopped once, and told of it in one way: who takes the word out of its list tells it. So there is no lock that a signal
handler of the job could meet half taken.

An asynchronous job is cancelled from another thread, with an exception of ours in place of the cancellation. As
`asyncio.timeout` does it: the job is cancelled the way its own framework cancels, so that its clean-up runs (under asyncio a
cancellation arrives once, and clean-up may await; trio asks for a shield). What comes out of the job because of us becomes a
BudgetExceeded. A cancellation from elsewhere, and whatever else the job raises, stays what it is.

An anyio scope would do for both, were it not for clean-up that awaits: under asyncio, too, it cancels every await anew.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from creditguard.engine.waiting import in_trio
from creditguard.errors import BudgetExceeded

if TYPE_CHECKING:
    import asyncio

    import trio


class Stopping:
    """Whether and how one run is stopped. `exceeded` makes the exception that the job gets: a new one each time."""

    def __init__(self, name: str, exceeded: Callable[[BudgetExceeded], BudgetExceeded]) -> None:
        self._name = name
        self._exceeded = exceeded
        self._errors: dict[str, BudgetExceeded] = {}
        self._word = [True]
        self._scope: JobScope | None = None
        self._callbacks: list[list[Callable[[BudgetExceeded], object]]] = []
        self._over = False

    @property
    def error(self) -> BudgetExceeded | None:
        """Why the run is stopped; None while it is not."""
        return self._errors.get("first")

    def end(self) -> None:
        """The job has ended by itself."""
        self._over = True

    def stop(self, error: BudgetExceeded) -> None:
        """Stop the job; the first reason counts. From any thread."""
        # First the error, then a look at who is to be told; `begin_scope` and `call` do the reverse. So one of the two sees the other.
        if self._over or self._errors.setdefault("first", error) is not error:
            return
        scope = self._scope
        if scope and self._take_word():
            scope.stop(self._exceeded(error))
        self._call_back(error)

    def check(self) -> None:
        """Raise BudgetExceeded if the run is stopped."""
        error = self.error
        if error is not None:
            self._take_word()
            raise self._exceeded(error)

    def thrown(self) -> BudgetExceeded | None:
        """What is to be thrown into a generator at its next step: once, unless it was told in another way."""
        error = self.error
        return self._exceeded(error) if error is not None and self._take_word() else None

    def call(self, callback: Callable[[BudgetExceeded], object]) -> None:
        """Call back once when the run is stopped; at once if it is."""
        self._callbacks.append([callback])
        error = self.error
        if error is not None:
            self._call_back(error)

    def begin_scope(self) -> JobScope:
        """A scope for the running task, not entered yet."""
        scope = self._scope = JobScope(self._put_word_back)
        error = self.error
        if error is not None and self._take_word():
            scope.stop(self._exceeded(error))
        return scope

    def end_scope(self) -> JobScope | None:
        """The scope that was begun, which nobody stops any more."""
        scope, self._scope = self._scope, None
        return scope

    def _call_back(self, error: BudgetExceeded) -> None:
        for callback in list(self._callbacks):
            try:
                call = callback.pop()
            except IndexError:
                continue
            try:
                call(self._exceeded(error))
            except Exception:
                logging.getLogger("creditguard").exception("%s: a callback of on_overrun failed", self._name)

    def _take_word(self) -> bool:
        try:
            self._word.pop()
        except IndexError:
            return False
        return True

    def _put_word_back(self) -> None:
        if not self._word:
            self._word.append(True)


class Backend(Protocol):
    """One cancellable stretch of a task, in its framework. For that task, except `soon`."""

    def begin(self) -> None:
        """The stretch begins. From now on `end` ends it, wherever this is broken off."""
        ...

    def soon(self, call: Callable[[], object]) -> None:
        """Have the event loop call, from whatever thread. Raises RuntimeError when the loop is gone."""
        ...

    def cancel(self) -> None:
        """Cancel the task; in its event loop."""
        ...

    def end(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        """The stretch is over; whether what ended it is our own cancellation."""
        ...


class JobScope:
    """A stretch of an asynchronous job that can be stopped. `stop` may be called from any thread, at any time; `dropped` is
    called when it came too late."""

    def __init__(self, dropped: Callable[[], None]) -> None:
        self._dropped = dropped
        self._backend: Backend | None = None
        self._error: BudgetExceeded | None = None
        self._sent = False
        self._left = False

    def stop(self, error: BudgetExceeded) -> None:
        """Cancel the job, and have it end with this error."""
        # First the error, then a look at the backend; `__exit__` does the reverse. So one of the two sees the other.
        self._error = error
        backend = self._backend
        if self._left:
            self._dropped()
        elif backend:
            try:
                backend.soon(self._cancel)
            except RuntimeError:
                pass  # the loop is gone, and the job with it

    def _cancel(self) -> None:
        if self._backend and not self._sent:
            self._sent = True
            self._backend.cancel()

    def __enter__(self) -> None:
        self._backend = _Trio() if in_trio() else _Asyncio()
        self._backend.begin()
        if self._error:
            self._backend.soon(self._cancel)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = True
        backend, self._backend = self._backend, None
        if backend is None:
            return
        ours = backend.end(kind, error, traceback)
        if ours and self._error:
            raise self._error from error
        if self._error and not self._sent:
            self._dropped()


class _Asyncio:
    def __init__(self) -> None:
        import asyncio

        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an async function runs in a task
        self._task: asyncio.Task[Any] = task
        self._loop = asyncio.get_running_loop()
        self._cancelled = asyncio.CancelledError
        self._sent = False
        self._before = task.cancelling() if sys.version_info >= (3, 11) else 0

    def begin(self) -> None:
        pass

    def soon(self, call: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(call)

    def cancel(self) -> None:
        self._sent = True
        self._task.cancel()

    def end(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:  # noqa: ARG002
        if not self._sent:
            return False
        if sys.version_info >= (3, 11) and self._task.uncancel() > self._before:
            return False  # somebody else has cancelled it, too
        return isinstance(error, self._cancelled)


class _Trio:
    def __init__(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        self._task: Any = trio.lowlevel.current_task()
        self._current_task = trio.lowlevel.current_task
        self._scope: trio.CancelScope = trio.CancelScope()

    def begin(self) -> None:
        self._scope.__enter__()

    def soon(self, call: Callable[[], object]) -> None:
        self._token.run_sync_soon(call)

    def cancel(self) -> None:
        self._scope.cancel()

    def end(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        if self._current_task() is not self._task:
            return False  # left by another task than entered it (a fixture): the scope is not ours to close
        return bool(self._scope.__exit__(kind, error, tb)) and self._scope.cancelled_caught
