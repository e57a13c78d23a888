"""`@task.credit_guard`: a Python task that is guarded from its first line to its last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from creditguard.airflow.base import CreditOperator
from creditguard.airflow.links import CreditReportLink
from creditguard.airflow.preflight import passes_by_itself
from creditguard.airflow.sdk import (
    AirflowSkipException,
    Asset,
    DecoratedOperator,
    PokeReturnValue,
    PythonOperator,
    task_decorator_factory,
)
from creditguard.errors import CreditGuardError, InsufficientCredits
from creditguard.rules.events import FINISHED
from creditguard.rules.sentences import sentence

if TYPE_CHECKING:
    from creditguard.airflow._guard import TaskGuard
    from creditguard.airflow.sdk import TaskDecorator

TaskOnShort = Literal["fail", "skip", "retry", "reschedule", "warn"]

XCOM_KEY = "credit_report"

_OF_ASSETS = ("run_id", "job", "unit", "budget", "credits_consumed", "basis")
"""What of the report goes with an event of an asset."""


class CreditGuardOperator(DecoratedOperator, PythonOperator, CreditOperator):
    """Runs the function as a guarded run and pushes the report as XCom `credit_report`. Used as `@task.credit_guard`.

    budget      the credits that the function may need (templated), or a callable that works it out from the function's arguments
    on_short    "fail" (the default): failed, without retries;  "skip": skipped;  "retry": failed, with the task's retries;
                "reschedule": tried again every `poke_interval` seconds (60), for at most `timeout` seconds, with no worker slot
                taken and the try number as it was;  "warn": an event, and the function runs
    conn_id     the connection that holds the key; None for the environment's (templated)
    name        the job's name in events; the function's own if left out
    deferrable  with "reschedule": wait in the triggerer; Airflow's `[operators] default_deferrable` if left out
    All other options are those of `creditguard.guard` (keep and account templated).

    The report is the XCom `credit_report`, a page behind the button "Credit report", and extra of the events of the task's assets.
    When Airflow kills the task, `on_kill` takes the exit reading and gives the hold back.
    """

    template_fields: Sequence[str] = ("templates_dict", "op_args", "op_kwargs", *CreditOperator.template_fields)
    template_fields_renderers = {"templates_dict": "json", "op_args": "py", "op_kwargs": "py"}  # noqa: RUF012 - Airflow's
    custom_operator_name = "@task.credit_guard"
    operator_extra_links = (CreditReportLink(),)
    ui_color = CreditOperator.ui_color
    python_callable: Callable[..., Any]
    _asks_only = False

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Any,
        op_kwargs: Any,
        on_short: TaskOnShort = "fail",
        **kwargs: Any,
    ) -> None:
        if on_short not in get_args(TaskOnShort):
            raise ValueError(f"on_short must be one of {', '.join(get_args(TaskOnShort))}, not {on_short!r}")
        for word in ("soft_fail", "never_fail", "silent_fail"):  # they would hide the function's own failure
            if kwargs.get(word):
                raise ValueError(f"{word} is for sensors; a guarded task that is to be skipped takes on_short='skip'")
        kwargs["mode"] = "reschedule" if on_short == "reschedule" else "poke"
        super().__init__(
            kwargs_to_upstream={"python_callable": python_callable, "op_args": op_args, "op_kwargs": op_kwargs},
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )
        self.on_short = on_short
        self._function = python_callable
        self.killed = False
        self._report: dict[str, Any] | None = None

    def execute(self, context: Any) -> Any:
        return self._wait(context) if self.on_short == "reschedule" else self._run(context).xcom_value

    def poke(self, context: Any) -> PokeReturnValue:
        """For on_short="reschedule": run the function, if it may start."""
        return self._run(context)

    def _funded(self, context: Any, ends: float) -> Any:
        return self._poke_or_defer(context, ends)  # others may have been quicker

    def _run(self, context: Any) -> PokeReturnValue:
        """Run the function, guarded. Not done: refused for now, and to be tried again."""
        from creditguard.airflow._guard import TaskGuard

        guard = self._guard(TaskGuard)
        guard.connect()
        self.python_callable = guard(self._function)
        try:
            return PokeReturnValue(is_done=True, xcom_value=super().execute(context))
        except CreditGuardError as error:
            if not guard.refused:
                raise  # the function's own
            refusal = error
        finally:
            self._leave_report(guard, context)
        if self.on_short == "reschedule" and passes_by_itself(refusal):
            assert guard.run is not None  # noqa: S101 - it was refused
            self._answer = {"reason": str(refusal)}
            self._ask_again_for(guard.run.report)
            return PokeReturnValue(is_done=False)
        raise self._instead_of(refusal).with_traceback(None)

    def _instead_of(self, refusal: CreditGuardError) -> Exception:
        """What Airflow is to see of a refusal."""
        if not isinstance(refusal, InsufficientCredits):
            return refusal
        if self.on_short == "skip":
            skip: Exception = AirflowSkipException(str(refusal))
            return skip
        if self.on_short == "retry":
            return InsufficientCredits(*refusal.args)  # without what keeps Airflow from trying again
        return refusal

    def on_kill(self) -> None:
        """Settle: the exit reading, within two seconds, and the hold given back."""
        from creditguard.airflow.kills import settle_open_runs

        self.killed = True
        settle_open_runs()
        super().on_kill()

    def get_openlineage_facets_on_complete(self, _: Any) -> Any:
        """The credits, for Airflow's OpenLineage provider, which asks for them if it is there."""
        from creditguard.airflow.openlineage import lineage

        return lineage(self._report)

    def _leave_report(self, guard: TaskGuard, context: Any) -> None:
        """Where people look: as an XCom, and with the events of the task's assets."""
        if guard.run is None or self.killed or (guard.refused and self.on_short == "reschedule"):
            return  # Airflow takes no XComs of a task that it has ended
        try:
            report = self._report = guard.run.report.to_dict()
            said = sentence(FINISHED, report)
            context["ti"].xcom_push(key=XCOM_KEY, value={"sentence": said, **report})
            for outlet in self.outlets:
                if isinstance(outlet, Asset):
                    context["outlet_events"][outlet].extra["creditguard"] = {name: report[name] for name in _OF_ASSETS}
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
