"""The pre-flight question as the gate, the sensor and the trigger ask it: no hold is taken."""

from __future__ import annotations

from typing import Any

from creditguard.errors import InsufficientCredits, RateLimited, SourceError
from creditguard.rules.amounts import to_json
from creditguard.rules.events import ADMITTED, REFUSED, Event, as_waiting
from creditguard.rules.values import Admission
from creditguard.sinks.host import HostSink


class WaitingSink:
    """For those who ask again and again: being short is no error, and being funded is told by Airflow itself."""

    def __init__(self) -> None:
        self._host = HostSink()

    def emit(self, event: Event) -> None:
        if event.name != ADMITTED:
            self._host.emit(as_waiting(event) if event.name == REFUSED else event)


def passes_by_itself(admission: Admission) -> bool:
    """Whether it makes sense to ask again later: short of credits, or a gateway that could not answer."""
    return isinstance(admission.refusal, (InsufficientCredits, SourceError, RateLimited))


def summary(admission: Admission) -> dict[str, Any]:
    """The answer as plain JSON values, for an XCom."""
    return {
        "enough": admission.refusal is None and not admission.shortfall,
        "budget": to_json(admission.plan.budget),
        "balance": to_json(admission.balance.amount) if admission.balance else None,
        "held_by_others": to_json(admission.held_by_others),
        "headroom": to_json(admission.headroom),
        "shortfall": to_json(admission.shortfall),
        "unit": admission.plan.unit,
    }
