"""`@task.credit_guard`: a Python task that is guarded from its first line to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    DecoratedOperator,
    task_decorator_factory,
)
from airflow.providers.standard.operators.python import PythonOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDecorator

    from creditguard.airflow._guard import TaskGuard
    from creditguard.rules.amounts import Amount
    from creditguard.rules.values import Label

TaskOnShort = Literal["fail", "skip", "retry", "warn"]

XCOM_KEY = "credit_report"


class CreditGuardOperator(DecoratedOperator, PythonOperator):
    """Runs the function as a guarded run and pushes the report as XCom `credit_report`. Used as `@task.credit_guard`.

    budget      the credits that the function may need (templated), or a callable that works it out from the function's arguments
    on_short    "fail" (the default): failed, without retries;  "skip": skipped;  "retry": failed, with the task's retries;
                "warn": an event, and the function runs
    conn_id     the connection that holds the key; None for the environment's (templated)
    keep, account, on_unreadable, labels, ledger, settle, max_age, watch, thresholds, on_overrun, stop_below, min_interval,
    drift_tolerance
                as for `creditguard.guard` (the first two templated)
    name        the job's name in events; the function's own if left out

    When Airflow kills the task, `on_kill` takes the exit reading and gives the hold back.
    """

    template_fields: Sequence[str] = ("templates_dict", "op_args", "op_kwargs", "budget", "keep", "conn_id", "account")
    template_fields_renderers = {"templates_dict": "json", "op_args": "py", "op_kwargs": "py"}  # noqa: RUF012 - Airflow's
    custom_operator_name = "@task.credit_guard"
    ui_color = "#e9f5dc"
    python_callable: Callable[..., Any]

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Any,
        op_kwargs: Any,
        budget: Amount | Callable[..., Amount] | None = None,
        on_short: TaskOnShort = "fail",
        conn_id: str | None = "apimall_default",
        keep: Amount | None = None,
        account: str | None = None,
        on_unreadable: Literal["abort", "warn"] | None = None,
        labels: Mapping[str, Label] | None = None,
        ledger: Any = None,
        settle: float | str | None = None,
        max_age: float | None = None,
        watch: float | None = None,
        thresholds: Iterable[Amount] | None = None,
        on_overrun: Literal["warn", "stop"] | None = None,
        stop_below: Amount | None = None,
        min_interval: float | None = None,
        drift_tolerance: Amount | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if on_short not in get_args(TaskOnShort):
            raise ValueError(f"on_short must be one of {', '.join(get_args(TaskOnShort))}, not {on_short!r}")
        super().__init__(
            kwargs_to_upstream={"python_callable": python_callable, "op_args": op_args, "op_kwargs": op_kwargs},
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )
        # Airflow would call a callable in a templated field with its own context.
        self.budget = None if callable(budget) else budget
        self.budget_of_call = budget if callable(budget) else None
        self.on_short = on_short
        self.conn_id = conn_id
        self.keep = keep
        self.account = account
        self.job = name
        self.options = {
            "on_unreadable": on_unreadable,
            "labels": labels,
            "ledger": ledger,
            "settle": settle,
            "max_age": max_age,
            "watch": watch,
            "thresholds": thresholds,
            "on_overrun": on_overrun,
            "stop_below": stop_below,
            "min_interval": min_interval,
            "drift_tolerance": drift_tolerance,
        }

    def execute(self, context: Any) -> Any:
        from creditguard.airflow.errors import NotEnoughCredits
        from creditguard.errors import InsufficientCredits

        guard = self._guard()
        guard.connect()
        self.python_callable = guard(self.python_callable)
        try:
            return super().execute(context)
        except NotEnoughCredits as error:
            if self.on_short == "fail" or guard.run is None or error.run_id != guard.run.id:
                raise
            if self.on_short == "skip":
                raise AirflowSkipException(str(error)) from None
            raise InsufficientCredits(*error.args) from None
        finally:
            self._push_report(guard, context["ti"])

    def on_kill(self) -> None:
        """Settle: the exit reading, within two seconds, and the hold given back."""
        from creditguard.airflow.kills import settle_open_runs

        settle_open_runs()
        super().on_kill()

    def _guard(self) -> TaskGuard:
        from creditguard.airflow._guard import TaskGuard

        return TaskGuard(
            self.job,
            conn_id=self.conn_id,
            budget=self.budget if self.budget_of_call is None else self.budget_of_call,
            keep=self.keep,
            account=self.account,
            on_short="warn" if self.on_short == "warn" else "abort",
            **{name: value for name, value in self.options.items() if value is not None},
        )

    def _push_report(self, guard: TaskGuard, ti: Any) -> None:
        report = guard.run.report if guard.run else None
        if report is None or getattr(guard.run, "killed", False):  # Airflow takes no XComs of a task that it has ended
            return
        try:
            ti.xcom_push(key=XCOM_KEY, value=report.to_dict())
        except Exception:  # a full or absent XCom backend must not undo what the function has done
            self.log.exception("The credit report could not be pushed")


def credit_guard_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """What Airflow makes `@task.credit_guard` of."""
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=CreditGuardOperator,
        **kwargs,
    )
