"""`CreditGateOperator`: the tasks behind it run only if the account can carry them."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    SkipMixin,
)

from creditguard.airflow.arguments import Guarded, one_of, split, takes_options

if TYPE_CHECKING:
    from creditguard.errors import CreditGuardError
    from creditguard.rules.values import Admission

GateOnShort = Literal["fail", "skip", "short_circuit", "retry", "reschedule", "warn"]


class CreditGateOperator(Guarded, BaseSensorOperator, SkipMixin):
    """Ask once whether a job with this budget could start: the balance, less what other runs hold, less `keep`.

    Takes no hold: guard the tasks behind it as well (`@task.credit_guard`), if they may run beside others.

    budget      the credits that the tasks behind the gate may need (templated)
    on_short    "fail" (the default): failed, without retries;  "skip": skipped, and with it what is behind it by its trigger
                rules (the DAG run ends green);  "short_circuit": the gate succeeds, and all that is behind it is skipped;
                "retry": failed, with the retries of the task;  "reschedule": asked again every `poke_interval` seconds (60),
                for at most `timeout` seconds, with no worker slot taken and the try number as it was;  "warn": an event, no more
    conn_id     the connection that holds the key; None for the environment's (templated)
    name        the job's name in events; `dag.task` if left out
    All other options are those of `creditguard.guard` (keep and account templated).

    A balance that cannot be read fails the task, with its retries; a key that is rejected, without. Returns the answer:
    enough, budget, balance, held_by_others, headroom, shortfall, unit.
    """

    inherits_from_skipmixin = True

    # A sensor, since that is what Airflow's schedulers let wait: on 2.x another task's reschedule date is not heeded.
    @takes_options
    def __init__(
        self,
        *,
        on_short: GateOnShort = "fail",
        conn_id: str | None = "apimall_default",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        one_of(on_short, get_args(GateOnShort))
        options, kwargs = split(kwargs)
        kwargs["mode"] = "reschedule" if on_short == "reschedule" else "poke"
        super().__init__(**kwargs)
        self._take(name, conn_id, options)
        self.on_short = on_short

    def execute(self, context: Any) -> Any:
        from creditguard.airflow.preflight import summary

        if self.on_short == "reschedule":
            return super().execute(context)
        admission = self._ask()
        if admission.refusal:
            return self._short(admission.refusal, context, summary(admission))
        self.log.info(
            "%s", "Enough credits." if not admission.shortfall else "Short of credits, going on all the same."
        )
        return summary(admission)

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """For on_short="reschedule": whether the wait is over."""
        from creditguard.airflow.errors import final
        from creditguard.airflow.preflight import passes_by_itself, summary

        admission = self._ask()
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

    def _ask(self) -> Admission:
        from creditguard.airflow._guard import guard
        from creditguard.airflow.preflight import WaitingSink

        how: dict[str, Any] = {"on_short": "warn" if self.on_short == "warn" else "abort"}
        if self.on_short == "reschedule":
            how["sink"] = WaitingSink()
        return self._guard(guard, **{"on_unreadable": "abort", **how}).ask()
