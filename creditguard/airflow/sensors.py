"""`CreditBalanceSensor`: wait until the account can carry a budget."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from creditguard.airflow.arguments import Guarded, split, takes_options


class CreditBalanceSensor(Guarded, BaseSensorOperator):
    """Wait until balance − held by others − keep ≥ budget. Takes no hold, and no worker slot while it waits.

    budget      the credits to wait for (templated)
    conn_id     the connection that holds the key; None for the environment's (templated)
    name        the job's name in events; `dag.task` if left out
    deferrable  wait in the triggerer, in one place for all tasks; Airflow's `[operators] default_deferrable` if left out
    All other options are those of `creditguard.guard` (keep and account templated).

    `mode` is "reschedule" unless said otherwise; `poke_interval`, `timeout` and `soft_fail` are those of every sensor. A gateway
    that cannot be reached is asked again like an account that is short; a rejected key fails the task without retries. Returns
    the answer: enough, budget, balance, held_by_others, headroom, shortfall, unit.
    """

    @takes_options
    def __init__(
        self,
        *,
        conn_id: str | None = "apimall_default",
        name: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        options, kwargs = split(kwargs)
        kwargs.setdefault("mode", "reschedule")
        super().__init__(**kwargs)
        self._take(name, conn_id, options)
        self.deferrable = deferrable

    def execute(self, context: Any) -> Any:
        if not self.deferrable:
            return super().execute(context)
        answer = self.poke(context)
        if answer:
            return answer.xcom_value
        from creditguard.airflow.triggers import CreditBalanceTrigger

        trigger = CreditBalanceTrigger(**self._asked(context), poke_interval=self.poke_interval)
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Ask once."""
        from creditguard.airflow._guard import guard
        from creditguard.airflow.errors import final
        from creditguard.airflow.preflight import WaitingSink, passes_by_itself, summary

        admission = self._guard(guard, on_short="abort", on_unreadable="abort", sink=WaitingSink()).ask()
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
            "conn_id": self.conn_id,
            "keep": None if self.keep is None else str(self.keep),
            "account": self.account,
            "labels": {**labels(context), **(self.options.get("labels") or {})},
        }
