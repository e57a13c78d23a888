"""`CreditGateOperator`: the tasks behind it run only if the account can carry them."""

from __future__ import annotations

from inspect import signature
from typing import Any, Literal, get_args

from creditguard.airflow.base import CreditOperator
from creditguard.airflow.errors import final
from creditguard.airflow.sdk import (
    XCOM_RETURN_KEY,
    AirflowSensorTimeout,
    AirflowSkipException,
    PokeReturnValue,
    SkipMixin,
)
from creditguard.errors import CreditGuardError, InsufficientCredits
from creditguard.rules.values import Admission

GateOnShort = Literal["fail", "skip", "short_circuit", "retry", "reschedule", "warn"]


class CreditGateOperator(CreditOperator, SkipMixin):
    """Ask once whether a job with this budget could start: the balance, less what other runs hold, less `keep`.

    Takes no hold: guard the tasks behind it as well (`@task.credit_guard`), if they may run beside others.

    budget      the credits that the tasks behind the gate may need (templated)
    on_short    "fail" (the default): failed, without retries;  "skip": skipped, and with it what is behind it by its trigger
                rules (the DAG run ends green);  "short_circuit": the gate succeeds, and all that is behind it is skipped;
                "retry": failed, with the retries of the task;  "reschedule": asked again every `poke_interval` seconds (60),
                for at most `timeout` seconds, with no worker slot taken and the try number as it was;  "warn": an event, no more
    conn_id     the connection that holds the key; None for the environment's (templated)
    name        the job's name in events; `dag.task` if left out
    deferrable  with "reschedule": wait in the triggerer; Airflow's `[operators] default_deferrable` if left out
    All other options are those of `creditguard.guard` (keep and account templated).

    A balance that cannot be read fails the task, with its retries; a key that is rejected, without. Returns the answer:
    enough, reason, budget, balance, held_by_others, headroom, shortfall, unit. It is left as XCom however the gate ends.
    """

    inherits_from_skipmixin = True

    def __init__(self, *, on_short: GateOnShort = "fail", **kwargs: Any) -> None:
        if on_short not in get_args(GateOnShort):
            raise ValueError(f"on_short must be one of {', '.join(get_args(GateOnShort))}, not {on_short!r}")
        kwargs["mode"] = "reschedule" if on_short == "reschedule" else "poke"
        super().__init__(**kwargs)
        self.on_short = on_short

    def execute(self, context: Any) -> Any:
        try:
            return self._wait(context) if self.on_short == "reschedule" else self._once(context)
        except (AirflowSensorTimeout, AirflowSkipException, CreditGuardError):
            self._leave_answer(context)
            raise

    def execute_complete(self, context: Any, event: dict[str, Any], ends: float = 0.0) -> Any:
        """Take up the task again with what the trigger found."""
        try:
            return super().execute_complete(context, event, ends)
        except Exception:
            self._leave_answer(context)
            raise

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """For on_short="reschedule": whether the wait is over."""
        return self._poked(self._ask_by_policy())

    def _ask_by_policy(self) -> Admission:
        return self._ask(self.options.get("on_unreadable") or "abort")

    def _once(self, context: Any) -> dict[str, Any] | None:
        refusal = self._ask_by_policy().refusal
        if refusal is None:
            return self._answer
        if not isinstance(refusal, InsufficientCredits) or self.on_short == "fail":
            raise final(refusal)
        if self.on_short == "skip":
            raise AirflowSkipException(str(refusal))
        if self.on_short == "retry":
            raise refusal
        self._leave_answer(context)
        self.log.info("All tasks behind the gate are skipped.")
        self._skip_all_downstream(context)
        return self._answer

    def _leave_answer(self, context: Any) -> None:
        if self._answer:
            context["ti"].xcom_push(key=XCOM_RETURN_KEY, value=self._answer)

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
