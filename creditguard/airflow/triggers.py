"""The wait of `CreditBalanceSensor(deferrable=True)`, in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from creditguard.rules.values import Label


class CreditBalanceTrigger(BaseTrigger):
    """Fires when the account can carry the budget, or when waiting makes no sense.

    It is stored in the metadata database, so it carries the connection's name and never a key; the ledger is the triggerer's own,
    by its settings.
    """

    def __init__(
        self,
        *,
        name: str,
        budget: str | None,
        conn_id: str | None,
        keep: str | None = None,
        account: str | None = None,
        labels: dict[str, Label] | None = None,
        poke_interval: float = 60.0,
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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the trigger is found again, and with which arguments."""
        arguments = {**self._question, "poke_interval": self._poke_interval}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask, wait, ask again. The sensor has just asked, so the wait comes first."""
        from creditguard.airflow._guard import guard
        from creditguard.airflow.errors import final
        from creditguard.airflow.preflight import WaitingSink, passes_by_itself, summary
        from creditguard.errors import CreditGuardError

        while True:
            await asyncio.sleep(self._poke_interval)
            try:
                admission = await guard(**self._question, on_unreadable="abort", sink=WaitingSink()).aask()
                refusal = admission.refusal
            except CreditGuardError as error:  # a setting or a key that cannot be used
                yield TriggerEvent({"status": "failed", "final": True, "reason": str(error)})
                return
            if refusal is None:
                yield TriggerEvent({"status": "enough", "answer": summary(admission)})
                return
            if not passes_by_itself(admission):
                yield TriggerEvent({"status": "failed", "final": final(refusal) is not refusal, "reason": str(refusal)})
                return
            self.log.info("Still waiting: %s", refusal)
