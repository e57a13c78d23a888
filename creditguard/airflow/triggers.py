"""The wait of a deferred sensor, gate or guarded task, in the triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from creditguard.airflow.errors import final
from creditguard.airflow.preflight import passes_by_itself, summary
from creditguard.airflow.sdk import AirflowFailException
from creditguard.errors import CreditGuardError

if TYPE_CHECKING:
    from creditguard.rules.values import Label


class CreditBalanceTrigger(BaseTrigger):
    """Fires when the account can carry the budget, when the time is up, or when waiting makes no sense.

    It is stored in the metadata database, so it carries the connection's name and never a key; the ledger is the triggerer's own,
    by its settings. `ends` is the time (seconds since the epoch) at which it gives up.
    """

    def __init__(
        self,
        *,
        name: str,
        budget: str,
        conn_id: str | None,
        keep: str | None = None,
        account: str | None = None,
        labels: dict[str, Label] | None = None,
        poke_interval: float = 60.0,
        ends: float | None = None,
    ) -> None:
        super().__init__()
        self._question: dict[str, Any] = {
            "name": name,
            "budget": budget,
            "conn_id": conn_id,
            "keep": keep,
            "account": account,
            "labels": labels,
        }
        self._poke_interval = poke_interval
        self._ends = ends

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the trigger is found again, and with which arguments."""
        arguments = {**self._question, "poke_interval": self._poke_interval, "ends": self._ends}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask, wait, ask again. The task has just asked, so the wait comes first."""
        from creditguard.airflow._guard import guard
        from creditguard.airflow.sinks import WaitingSink

        sink = WaitingSink(asks_only=True)
        while True:
            await asyncio.sleep(self._poke_interval)
            answer = None
            try:
                question = guard(**self._question, on_short="abort", on_unreadable="abort", sink=sink)
                admission = await question.aask()
                refusal, answer = admission.refusal, summary(admission)
            except CreditGuardError as error:  # a setting or a key that cannot be used; or nothing could be asked
                refusal = error
            if refusal is None:
                yield TriggerEvent({"status": "enough", "answer": answer})
                return
            if not passes_by_itself(refusal):
                over = isinstance(final(refusal), AirflowFailException)
                yield TriggerEvent({"status": "failed", "final": over, "reason": str(refusal), "answer": answer})
                return
            if self._ends is not None and time.time() + self._poke_interval > self._ends:
                yield TriggerEvent({"status": "timeout", "reason": str(refusal), "answer": answer})
                return
