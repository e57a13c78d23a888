"""`@task.credit_guard`: a Python task that is guarded from its first line to its last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    DecoratedOperator,
    task_decorator_factory,
)
from airflow.providers.standard.operators.python import PythonOperator

from creditguard.airflow.arguments import Guarded, one_of, split, takes_options

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDecorator

    from creditguard.airflow._guard import TaskGuard

TaskOnShort = Literal["fail", "skip", "retry", "warn"]

XCOM_KEY = "credit_report"


class CreditGuardOperator(Guarded, DecoratedOperator, PythonOperator):
    """Runs the function as a guarded run and pushes the report as XCom `credit_report`. Used as `@task.credit_guard`.

    budget      the credits that the function may need (templated), or a callable that works it out from the function's arguments
    on_short    "fail" (the default): failed, without retries;  "skip": skipped;  "retry": failed, with the task's retries;
                "warn": an event, and the function runs
    conn_id     the connection that holds the key; None for the environment's (templated)
    name        the job's name in events; the function's own if left out
    All other options are those of `creditguard.guard` (keep and account templated).

    When Airflow kills the task, `on_kill` takes the exit reading and gives the hold back.
    """

    template_fields: Sequence[str] = ("templates_dict", "op_args", "op_kwargs", *Guarded.template_fields)
    template_fields_renderers = {"templates_dict": "json", "op_args": "py", "op_kwargs": "py"}  # noqa: RUF012 - Airflow's
    custom_operator_name = "@task.credit_guard"
    python_callable: Callable[..., Any]

    @takes_options
    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Any,
        op_kwargs: Any,
        on_short: TaskOnShort = "fail",
        conn_id: str | None = "apimall_default",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        one_of(on_short, get_args(TaskOnShort))
        options, kwargs = split(kwargs)
        super().__init__(
            kwargs_to_upstream={"python_callable": python_callable, "op_args": op_args, "op_kwargs": op_kwargs},
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )
        self._take(name, conn_id, options)
        self.on_short = on_short
        self._killed = False

    def execute(self, context: Any) -> Any:
        from creditguard.airflow._guard import TaskGuard
        from creditguard.airflow.errors import NotEnoughCredits
        from creditguard.errors import InsufficientCredits

        guard = self._guard(TaskGuard, on_short="warn" if self.on_short == "warn" else "abort")
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

        self._killed = True
        settle_open_runs()
        super().on_kill()

    def _push_report(self, guard: TaskGuard, ti: Any) -> None:
        if guard.run is None or self._killed:  # Airflow takes no XComs of a task that it has ended
            return
        try:
            ti.xcom_push(key=XCOM_KEY, value=guard.run.report.to_dict())
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
