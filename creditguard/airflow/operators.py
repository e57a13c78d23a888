"""`CreditGateOperator`: the tasks behind it run only if the account can carry them."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    SkipMixin,
)

if TYPE_CHECKING:
    from creditguard.airflow.preflight import Question
    from creditguard.errors import CreditGuardError
    from creditguard.rules.amounts import Amount
    from creditguard.rules.values import Label

GateOnShort = Literal["fail", "skip", "short_circuit", "retry", "reschedule", "warn"]


class CreditGateOperator(BaseSensorOperator, SkipMixin):
    """Ask once whether a job with this budget could start: the balance, less what other runs hold, less `keep`.

    Takes no hold: guard the tasks behind it as well (`@task.credit_guard`), if they may run beside others.

    budget      the credits that the tasks behind the gate may need (templated)
    on_short    "fail" (the default): failed, without retries;  "skip": skipped, and with it what is behind it by its trigger
                rules (the DAG run ends green);  "short_circuit": the gate succeeds, and all that is behind it is skipped;
                "retry": failed, with the retries of the task;  "reschedule": asked again every `poke_interval` seconds (60),
                for at most `timeout` seconds, with no worker slot taken and the try number as it was;  "warn": an event, no more
    conn_id     the connection that holds the key; None for the environment's (templated)
    keep, account, on_unreadable, labels    as for `creditguard.guard` (the first two templated)
    name        the job's name in events; `dag.task` if left out

    A balance that cannot be read fails the task, with its retries; a key that is rejected, without. Returns the answer:
    enough, budget, balance, held_by_others, headroom, shortfall, unit.
    """

    template_fields: Sequence[str] = ("budget", "keep", "conn_id", "account")
    ui_color = "#e9f5dc"
    inherits_from_skipmixin = True

    # A sensor, since that is what Airflow's schedulers let wait: on 2.x another task's reschedule date is not heeded.
    def __init__(
        self,
        *,
        budget: Amount | None = None,
        on_short: GateOnShort = "fail",
        conn_id: str | None = "apimall_default",
        keep: Amount | None = None,
        account: str | None = None,
        on_unreadable: Literal["abort", "warn"] = "abort",
        labels: dict[str, Label] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if on_short not in get_args(GateOnShort):
            raise ValueError(f"on_short must be one of {', '.join(get_args(GateOnShort))}, not {on_short!r}")
        kwargs["mode"] = "reschedule" if on_short == "reschedule" else "poke"
        super().__init__(**kwargs)
        self.budget = budget
        self.on_short = on_short
        self.conn_id = conn_id
        self.keep = keep
        self.account = account
        self.on_unreadable = on_unreadable
        self.labels = labels
        self.job = name

    def execute(self, context: Any) -> Any:
        from creditguard.airflow.preflight import summary

        if self.on_short == "reschedule":
            return super().execute(context)
        admission = self._question(context).ask()
        if admission.refusal:
            return self._short(admission.refusal, context, summary(admission))
        self.log.info(
            "%s", "Enough credits." if not admission.shortfall else "Short of credits, going on all the same."
        )
        return summary(admission)

    def poke(self, context: Any) -> PokeReturnValue:
        """For on_short="reschedule": whether the wait is over."""
        from creditguard.airflow.errors import final
        from creditguard.airflow.preflight import passes_by_itself, summary

        admission = self._question(context).ask()
        if admission.refusal and not passes_by_itself(admission):
            raise final(admission.refusal)
        return PokeReturnValue(is_done=admission.refusal is None, xcom_value=summary(admission))

    def _short(self, refusal: CreditGuardError, context: Any, answer: dict[str, Any]) -> dict[str, Any]:
        from creditguard.airflow.errors import final
        from creditguard.errors import InsufficientCredits

        if not isinstance(refusal, InsufficientCredits) or self.on_short == "fail":
            raise final(refusal)
        if self.on_short == "skip":
            raise AirflowSkipException(str(refusal))
        if self.on_short == "retry":
            raise refusal
        self.log.warning("%s: all tasks behind the gate are skipped", refusal)
        self._skip_all_downstream(context)
        return answer

    def _skip_all_downstream(self, context: Any) -> None:
        task, ti = context["task"], context["ti"]
        tasks = [each for each in task.get_flat_relatives(upstream=False) if not each.is_teardown]
        if not tasks:
            return
        if "ti" in signature(self.skip).parameters:
            self.skip(ti=ti, tasks=tasks)  # raises, to have the supervisor do it
        else:  # Airflow 2
            dag_run = context["dag_run"]
            self.skip(dag_run=dag_run, execution_date=dag_run.logical_date, tasks=tasks, map_index=ti.map_index)

    def _question(self, context: Any) -> Question:
        from creditguard.airflow.context import job_name, labels
        from creditguard.airflow.preflight import Question, WaitingSink

        return Question(
            self.job or job_name(context),
            self.budget,
            self.conn_id,
            keep=self.keep,
            account=self.account,
            on_short="warn" if self.on_short == "warn" else "abort",
            on_unreadable=self.on_unreadable,
            labels={**labels(context), **(self.labels or {})},
            sink=WaitingSink() if self.on_short == "reschedule" else None,
        )
