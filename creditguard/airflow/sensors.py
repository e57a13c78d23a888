"""`CreditBalanceSensor`: wait until the account can carry a budget."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

if TYPE_CHECKING:
    from creditguard.rules.amounts import Amount
    from creditguard.rules.values import Label


class CreditBalanceSensor(BaseSensorOperator):
    """Wait until balance − held by others − keep ≥ budget. Takes no hold, and no worker slot while it waits.

    budget      the credits to wait for (templated)
    conn_id     the connection that holds the key; None for the environment's (templated)
    keep, account, labels    as for `creditguard.guard` (the first two templated)
    name        the job's name in events; `dag.task` if left out
    deferrable  wait in the triggerer, in one place for all tasks; Airflow's `[operators] default_deferrable` if left out

    `mode` is "reschedule" unless said otherwise; `poke_interval`, `timeout` and `soft_fail` are those of every sensor. A gateway
    that cannot be reached is asked again like an account that is short; a rejected key fails the task without retries. Returns
    the answer: enough, budget, balance, held_by_others, headroom, shortfall, unit.
    """

    template_fields: Sequence[str] = ("budget", "keep", "conn_id", "account")
    ui_color = "#e9f5dc"

    def __init__(
        self,
        *,
        budget: Amount | None = None,
        conn_id: str | None = "apimall_default",
        keep: Amount | None = None,
        account: str | None = None,
        labels: dict[str, Label] | None = None,
        name: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("mode", "reschedule")
        super().__init__(**kwargs)
        self.budget = budget
        self.conn_id = conn_id
        self.keep = keep
        self.account = account
        self.labels = labels
        self.job = name
        self.deferrable = deferrable

    def execute(self, context: Any) -> Any:
        if not self.deferrable:
            return super().execute(context)
        answer = self.poke(context)
        if answer:
            return answer.xcom_value
        from creditguard.airflow.triggers import CreditBalanceTrigger

        trigger = CreditBalanceTrigger(
            **self._asked(context), conn_id=self.conn_id, account=self.account, poke_interval=self.poke_interval
        )
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def poke(self, context: Any) -> PokeReturnValue:
        """Ask once."""
        from creditguard.airflow.errors import final
        from creditguard.airflow.preflight import Question, WaitingSink, passes_by_itself, summary

        question = Question(**self._asked(context), conn_id=self.conn_id, account=self.account, sink=WaitingSink())
        admission = question.ask()
        if admission.refusal and not passes_by_itself(admission):
            raise final(admission.refusal)
        return PokeReturnValue(is_done=admission.refusal is None, xcom_value=summary(admission))

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:  # noqa: ARG002 - Airflow's signature
        """Take up the task again with what the trigger found."""
        if event["status"] == "enough":
            return event["answer"]
        from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

        raise (AirflowFailException if event["final"] else AirflowException)(event["reason"])

    def _asked(self, context: Any) -> dict[str, Any]:
        from creditguard.airflow.context import job_name, labels

        return {
            "name": self.job or job_name(context),
            "budget": None if self.budget is None else str(self.budget),
            "keep": None if self.keep is None else str(self.keep),
            "labels": {**labels(context), **(self.labels or {})},
        }
