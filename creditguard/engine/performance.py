"""A flow on its way: effect after effect, by whichever service thread has the last outcome.

Where an effect may wait, a turn is laid out, and only who takes it goes on with the flow: the outcome when it comes, or `cut` and
`overdue` in its place. An outcome that comes too late finds the turn gone, and is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, cast

from creditguard.engine.desk import PARKED, Resume
from creditguard.engine.waiting import Ticket
from creditguard.errors import LedgerUnavailable, SourceError
from creditguard.rules.effects import CutShort, Deliver, Effect, Emit, Flow, Now, Read, Release, Settle, Sleep, T
from creditguard.rules.ports import EventSink

if TYPE_CHECKING:
    from creditguard.engine.leases import Leases
    from creditguard.engine.readings import Readings


class Parts(NamedTuple):
    """What the effects of one account's runs are performed on."""

    readings: Readings
    leases: Leases
    sink: EventSink


class Performance(Generic[T]):
    """One flow, whose outcome goes to the ticket. `decided` is called just before, in the service thread, with the outcome; with None
    when an exception came out of the flow."""

    def __init__(
        self,
        flow: Flow[T],
        parts: Parts,
        context: Context,
        ticket: Ticket[T],
        decided: Callable[[T | None], object],
    ) -> None:
        self._flow = flow
        self._parts = parts
        self._context = context
        self._ticket = ticket
        self._decided = decided
        self._turn: list[Effect] = []
        self._failing: Exception | None = None

    def start(self) -> None:
        """Perform the flow as far as it goes without waiting. In a service thread, as all that follows."""
        self._go(self._flow.send, None)

    def cut(self) -> None:
        """Nobody waits any more: what the flow is at is broken off by CutShort. What it gives back is given back."""
        self._fail(CutShort())

    def overdue(self) -> None:
        """The time is up, twice that of a reading: what hangs is taken for unavailable, and the flow decides by its policy."""
        self._fail(TimeoutError(f"no answer within {2 * self._parts.readings.timeout:g} s"))

    def _fail(self, failing: Exception) -> None:
        self._failing = failing
        try:
            effect = self._turn.pop()
        except IndexError:
            return  # the flow itself is running, in another service thread: it meets the failure at its next effect
        if isinstance(effect, Emit) or (isinstance(effect, Sleep) and not isinstance(failing, CutShort)):
            self._go(self._flow.send, None)  # slept enough; or the sink hangs, and keeps its thread, but not the flow
        else:
            self._go(self._flow.throw, self._unavailable(failing, effect))

    def _unavailable(self, failing: Exception, effect: Effect) -> Exception:
        if isinstance(failing, CutShort):
            return failing
        if isinstance(effect, Read) and not (effect.marked and self._parts.leases.desk.hangs(2)):
            return SourceError(f"{self._parts.readings.source.name} gave {failing}")
        return LedgerUnavailable(f"gave {failing}", self._parts.leases.ledger.name)

    def _go(self, step: Callable[[Any], Effect], value: Any) -> None:
        flow, ticket = self._flow, self._ticket
        try:
            while True:
                effect = step(value)
                step = flow.send
                try:
                    value = self._perform(effect)
                except Exception as error:
                    step, value = flow.throw, error
                    continue
                if value is PARKED:
                    return
        except StopIteration as stop:
            self._deliver(stop.value)
        except BaseException as error:
            if not ticket.delivered:
                self._decided(None)
                ticket.deliver(None, error)
        self._parts.leases.engine.emitter.after(ticket.finish)

    def _deliver(self, outcome: T) -> None:
        if not self._ticket.delivered:
            self._decided(outcome)
            self._ticket.deliver(outcome)

    def _perform(self, effect: Effect) -> Any:
        leases = self._parts.leases
        match effect:
            case Emit(event):
                turn = self._turn = [effect]
                leases.engine.emitter.emit_now(self._context, self._parts.sink, event)
                return None if _take(turn) else PARKED
            case Now():
                return time.monotonic()
            case Deliver(outcome):
                self._deliver(cast("T", outcome))
                return None
            case (
                Release() | Settle()
            ):  # what is owed to the ledger is given whatever fails, and is not to be broken off
                return leases.give_back(effect, self._resume([effect]))
        turn = self._turn = [effect]
        if self._failing:
            if isinstance(effect, Sleep) and not isinstance(self._failing, CutShort):
                return None if _take(turn) else PARKED
            return self._outcome(turn, self._unavailable(self._failing, effect))
        match effect:
            case Sleep(duration):
                leases.engine.later(duration, partial(self._resume(turn), None, None))
                return PARKED
            case Read(marked):
                return self._parts.readings.join(self._resume(turn), marked=marked)
        try:
            outcome = leases.ask(effect, self._resume(turn))
        except Exception as error:
            return self._outcome(turn, error)
        return outcome if outcome is PARKED or _take(turn) else PARKED

    @staticmethod
    def _outcome(turn: list[Effect], failure: Exception) -> Any:
        if not _take(turn):
            return PARKED  # somebody else goes on with the flow
        raise failure

    def _resume(self, turn: list[Effect]) -> Resume:
        def resume(outcome: Any, failure: Exception | None) -> None:
            if _take(turn):
                if failure is None:
                    self._go(self._flow.send, outcome)
                else:
                    self._go(self._flow.throw, failure)

        return resume


def _take(turn: list[Effect]) -> bool:
    try:
        turn.pop()
    except IndexError:
        return False
    return True
