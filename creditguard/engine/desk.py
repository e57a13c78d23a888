"""A ledger's desk: verbs are asked one at a time, in the order in which they came, and nobody waits in a line.

The service thread that comes when the desk is free asks its verb itself, at once. Who comes when it is taken leaves the verb there
with what to do next, and goes; whoever frees the desk has a service thread go on with those. So a ledger that hangs
keeps one thread, and nobody else's. While it does it is unavailable at once.
"""

from __future__ import annotations

import _thread
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from creditguard.engine.service import Service
from creditguard.errors import LedgerError, LedgerUnavailable
from creditguard.process.background import seconds

Resume: TypeAlias = Callable[[Any, "Exception | None"], object]
"""What goes on when an answer is there: the outcome, or the exception in place of it."""


_NEVER = float("inf")


class _Parked:
    """In place of an outcome: it will come by `resume`."""


PARKED = _Parked()


class Desk:
    """The one place where a ledger is asked. `patience`: seconds after which a verb is taken to hang."""

    def __init__(self, service: Service, name: str, patience: float) -> None:
        self._service = service
        self._name = name
        self._patience = patience
        self._free = _thread.allocate_lock()
        self._since = _NEVER
        self._waiting: deque[tuple[Callable[[], Any], Resume]] = deque()
        self._claims: list[None] = []

    def ask(self, verb: Callable[[], Any], resume: Resume) -> Any:
        """Ask now, if the desk is free: returns or raises what the verb does. Else PARKED, and the outcome comes by `resume`."""
        if (
            not self._waiting
            and not self._claims
            and not self._service.has_more()
            and self._free.acquire(blocking=False)
        ):
            try:
                return self._perform(verb)
            finally:
                self.leave()
        if self.hangs():
            raise LedgerUnavailable(f"has not answered for {self._patience:g} s", self._name)
        self._waiting.append((verb, resume))
        if not self._free.locked():  # it was left between the two lines above
            self._service.put(self._serve_waiting)
        return PARKED

    def take(self, within: float) -> bool:
        """Take the desk between two verbs, in any thread; whether it could be had in so many seconds. Then verbs wait until `leave`."""
        self._claims.append(None)  # else the thread that frees the desk takes it again before we wake
        try:
            return self._free.acquire(timeout=max(within, 0.0))
        finally:
            self._claims.pop()
            if not self._free.locked():
                self._go_on()

    def leave(self) -> None:
        """Free the desk."""
        self._free.release()
        self._go_on()

    def hangs(self, share: int = 1) -> bool:
        """Whether a verb has been at it for too long, or for half of that (`share` 2), a tenth (10)."""
        return self._free.locked() and seconds() - self._since > self._patience / share

    def _perform(self, verb: Callable[[], Any]) -> Any:
        self._since = seconds()
        try:
            return verb()
        except LedgerError:
            raise
        except BaseException as error:
            # A ledger of somebody else's that breaks its promise. Its message is left out: it may quote a URL with a password.
            raise LedgerUnavailable(f"failed with {type(error).__name__}", self._name) from None
        finally:
            self._since = _NEVER

    def _go_on(self) -> None:
        if self._waiting:
            self._service.put(self._serve_waiting)

    def _serve_waiting(self) -> None:
        while self._waiting and not self._claims and self._free.acquire(blocking=False):
            outcome, failure = None, None
            try:
                verb, resume = self._waiting.popleft()
                try:
                    outcome = self._perform(verb)
                except Exception as error:
                    failure = error
            except IndexError:
                return  # another service thread took it
            finally:
                self._free.release()
            self._service.put(partial(resume, outcome, failure))
