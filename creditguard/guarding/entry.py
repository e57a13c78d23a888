"""One entering of a guard, and what makes it safe: whatever hits the caller between handing over and leaving.

The engine owns the hold; the caller owns the entry, and nobody else does. Everything that the caller does on its way in or out
stands in one `try`, whose handler puts one call, made beforehand, into the engine's queue: the caller is gone. Should even that
be hit (a second signal, an instant before the first line), the entry itself goes with the caller's frame, and a weak
reference to it makes the same call.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType

from creditguard.guarding import hosts
from creditguard.guarding.run import Run
from creditguard.rules.values import Outcome


class Entry:
    """A context manager around one run."""

    __slots__ = ("__weakref__", "gone", "run")

    def __init__(self, run: Run) -> None:
        self.run: Run = run
        engine = run._life.engine
        self.gone: Callable[..., object] = engine.timer.at_once(partial(engine.service.put, run._life.vanish))
        # Called with the dead reference, which the queue takes for a flag that it does not heed.
        run._life.backstop = weakref.ref(self, self.gone)

    def __enter__(self) -> Run:
        try:
            refusal = self.run._open()
            if refusal:  # raised here, and without where it was made: nobody's traceback is longer than it must be
                raise refusal.with_traceback(None)
            return self.run
        except BaseException:
            self.gone()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close(hosts.outcome_of(error))
        except BaseException:
            self.gone()
            raise

    def close(self, outcome: Outcome) -> None:
        """Leave, by the caller's own word of how the job ended."""
        try:
            self.run._close(outcome)
            self.run._life.backstop = None
        except BaseException:
            self.gone()
            raise

    async def __aenter__(self) -> Run:
        try:
            refusal = await self.run._aopen()
            if refusal:
                raise refusal.with_traceback(None)
            return self.run
        except BaseException:
            self.gone()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is GeneratorExit and not _in_async_generator(sys._getframe(1)):
                self.run._life.hand_back("cancelled", waits=False)  # a coroutine that is closed must not await any more
            else:
                await self.run._aclose(hosts.outcome_of(error))
            self.run._life.backstop = None
        except BaseException:
            self.gone()
            raise


def _in_async_generator(frame: FrameType | None) -> bool:
    """Whether an async generator leaves: one that is closed may await, a coroutine may not."""
    while frame and frame.f_code.co_name == "__aexit__":  # the guard's, an exit stack's
        frame = frame.f_back
    return frame is not None and bool(frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR)
