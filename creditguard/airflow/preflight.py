"""The pre-flight question as the operator, the sensor and the trigger ask it: no hold is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from creditguard.airflow.hooks import ApiMallHook
from creditguard.errors import InsufficientCredits, RateLimited, SourceError
from creditguard.guarding import guard as _guard
from creditguard.rules.amounts import Amount, to_json
from creditguard.rules.events import ADMITTED, REFUSED, Event, waiting
from creditguard.rules.ports import EventSink
from creditguard.rules.values import Admission, Label, OnShort
from creditguard.sinks.host import HostSink


class WaitingSink:
    """For those who ask again and again: being short is no error, and being funded is told by Airflow itself."""

    def __init__(self) -> None:
        self._host = HostSink()

    def emit(self, event: Event) -> None:
        if event.name != ADMITTED:
            self._host.emit(waiting(event) if event.name == REFUSED else event)


@dataclass(frozen=True, slots=True)
class Question:
    """Could a job with this budget start now?"""

    name: str
    budget: Amount | None
    conn_id: str | None
    keep: Amount | None = None
    account: str | None = None
    on_short: OnShort = "abort"
    on_unreadable: OnShort | None = None
    labels: dict[str, Label] | None = None
    sink: EventSink | None = None

    def ask(self) -> Admission:
        hook = ApiMallHook(self.conn_id)
        hook.get_conn()
        return self._guard(hook).ask()

    async def aask(self) -> Admission:
        hook = ApiMallHook(self.conn_id)
        await hook.aget_conn()
        return await self._guard(hook).aask()

    def _guard(self, hook: ApiMallHook) -> _guard.guard:
        return _guard.guard(
            self.name,
            budget=self.budget,
            source=hook.get_conn(),
            keep=self.keep,
            account=self.account or hook.account,
            on_short=self.on_short,
            on_unreadable=self.on_unreadable or "abort",
            labels=self.labels,
            sink=self.sink,
        )


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
