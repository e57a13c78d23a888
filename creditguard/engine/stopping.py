"""Cancel an asynchronous job from outside: from another thread, with an exception of ours in place of the cancellation.

As `asyncio.timeout` does it: the job is cancelled the way its own framework cancels, so that its clean-up runs (under
asyncio a cancellation arrives once, and clean-up may await; trio asks for a shield). What comes out of the job because of us
becomes a BudgetExceeded. A cancellation from elsewhere, and whatever else the job raises, stays what it is.

An anyio scope would do for both, were it not for clean-up that awaits: under asyncio, too, it cancels every await anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from creditguard.errors import BudgetExceeded

if TYPE_CHECKING:
    import asyncio

    import trio


class Backend(Protocol):
    """One cancellable stretch of a task, in its framework. For that task, except `soon`."""

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

    def __init__(self, dropped: Callable[[], None] = lambda: None) -> None:
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
        self._backend = _trio() or _Asyncio()
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
        self._scope.__enter__()

    def soon(self, call: Callable[[], object]) -> None:
        self._token.run_sync_soon(call)

    def cancel(self) -> None:
        self._scope.cancel()

    def end(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        if self._current_task() is not self._task:
            return False  # left by another task than entered it (a fixture): the scope is not ours to close
        return bool(self._scope.__exit__(kind, error, tb)) and self._scope.cancelled_caught


def _trio() -> Backend | None:
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return None  # loaded, but it is not what runs here
    return _Trio()
