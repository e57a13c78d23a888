"""What the gate, the sensor and the guarded task have in common: their arguments, the guard that is made of them when they run,
and how they wait.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from inspect import Parameter
from typing import TYPE_CHECKING, Any, TypeVar

from creditguard.airflow.errors import final
from creditguard.airflow.preflight import passes_by_itself, summary
from creditguard.airflow.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from creditguard.settings.options import GuardOptions, Options, hide_password

if TYPE_CHECKING:
    from creditguard.airflow._guard import guard
    from creditguard.rules.events import Level
    from creditguard.rules.report import Report
    from creditguard.rules.values import Admission, Plan

G = TypeVar("G", bound="guard")
F = TypeVar("F", bound=Callable[..., None])

OPTIONS = [name for name in GuardOptions.__annotations__ if name != "on_short"]
"""The guard's options, except for the one that means more in Airflow."""
_TEMPLATED = ("budget", "keep", "account")
_LEVELS: dict[str, Level] = {"skip": "info", "short_circuit": "info", "retry": "warning"}
"""How loud a refusal is, by what was asked for: an error if left out."""
_AT_HOME = ("source", "ledger", "sink")
"""Options that cannot be sent to the triggerer: objects, and URLs that may hold a password."""
_GRACE = 300.0
"""Seconds after the end of a wait in which a triggerer may say so itself, before Airflow ends the wait."""


def takes_options(init: F) -> F:
    """Name the guard's options in the signature of an operator's `__init__(self, *, ..., **options)`: Airflow looks there for
    what `default_args` and `partial()` may give."""
    signature = inspect.signature(init)
    *named, rest = signature.parameters.values()
    options = [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in OPTIONS]
    init.__signature__ = signature.replace(parameters=[*named, *options, rest])  # type: ignore[attr-defined]
    return init


class CreditOperator(BaseSensorOperator):
    """A sensor, since that is what Airflow's schedulers let wait: on 2.x another task's reschedule date is not heeded.

    Its arguments are described where users meet them, in the gate, the sensor and the guarded task. `apimall_conn_id` is another
    name for `conn_id`.
    """

    template_fields: Sequence[str] = (*_TEMPLATED, "conn_id")
    ui_color = "#e9f5dc"
    on_short: str = "reschedule"
    """What a refusal becomes."""
    _asks_only = True

    @takes_options
    def __init__(
        self,
        *,
        conn_id: str | None = "apimall_default",
        apimall_conn_id: str | None = None,
        name: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        hide_password(kwargs)
        given = {option: kwargs.pop(option) for option in OPTIONS if option in kwargs}
        super().__init__(**kwargs)
        budget = given.get("budget")
        # Airflow would call a callable in a templated field with its own context.
        self._budget_of_call = budget if callable(budget) else None
        self.budget = None if callable(budget) else budget
        self.keep = given.get("keep")
        self.account = given.get("account")
        self.conn_id = apimall_conn_id or conn_id
        self.job = name
        self.options = {option: value for option, value in given.items() if option not in _TEMPLATED}
        Options.of(self.options)  # what is no template is checked while the DAG file is parsed
        at_home = [option for option in _AT_HOME if self.options.get(option) is not None]
        if deferrable and at_home:
            raise ValueError(
                f"deferrable=True: {at_home[0]}=... cannot be sent to the triggerer; set it in its environment"
            )
        if deferrable is None:
            deferrable = not at_home and conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._answer: dict[str, Any] | None = None
        self._waiting_sink: Any = None

    def _guard(self, kind: type[G], **more: Any) -> G:
        own = {
            "budget": self.budget if self._budget_of_call is None else self._budget_of_call,
            "keep": self.keep,
            "account": self.account,
            "on_short": "warn" if self.on_short == "warn" else "abort",
            "sink": self.options.get("sink") or self._task_sink(),
        }
        return kind(self.job, conn_id=self.conn_id, **{**self.options, **own, **more})

    def _task_sink(self) -> Any:
        """The task's log, where a refusal is as loud as what was asked for makes it."""
        from creditguard.airflow.sinks import TaskSink, WaitingSink

        if self.on_short != "reschedule":
            return TaskSink(_LEVELS.get(self.on_short, "error"))
        if self._waiting_sink is None:  # one for all questions: it says nothing twice
            self._waiting_sink = WaitingSink(asks_only=self._asks_only)
        return self._waiting_sink

    def _ask(self, on_unreadable: str = "abort") -> Admission:
        """Ask once, and note the answer and the question."""
        from creditguard.airflow._guard import guard

        admission = self._guard(guard, on_unreadable=on_unreadable).ask()
        self._answer = summary(admission)
        self._ask_again_for(admission.plan)
        return admission

    def _poked(self, admission: Admission) -> PokeReturnValue:
        """Whether the wait is over. Raises a refusal that waiting cannot mend."""
        if admission.refusal and not passes_by_itself(admission.refusal):
            raise final(admission.refusal)
        return PokeReturnValue(is_done=admission.refusal is None, xcom_value=self._answer)

    # Waiting: `poke` asks, and what comes back is Airflow's affair, or the triggerer's.

    def _wait(self, context: Any) -> Any:
        """Ask, and be asked again until there is enough or the time is up; the try number stays."""
        if self.deferrable:
            return self._poke_or_defer(context, time.time() + self.timeout)
        try:
            return BaseSensorOperator.execute(self, context)
        except (AirflowSensorTimeout, AirflowSkipException) as error:
            if self._answer and self._answer["reason"] and "timed out" in str(error):
                raise type(error)(_in_vain(self._answer["reason"], self.timeout)) from None
            raise

    def _poke_or_defer(self, context: Any, ends: float) -> Any:
        found = self.poke(context)
        if isinstance(found, PokeReturnValue) and found.is_done:
            return found.xcom_value
        from creditguard.airflow.triggers import CreditBalanceTrigger

        trigger = CreditBalanceTrigger(**self._question, poke_interval=self.poke_interval, ends=ends)
        left = timedelta(seconds=max(ends - time.time(), 0.0) + _GRACE)
        return self.defer(trigger=trigger, method_name="execute_complete", kwargs={"ends": ends}, timeout=left)

    def _ask_again_for(self, asked: Plan | Report) -> None:
        """Note the question that the triggerer is to ask."""
        self._question: dict[str, Any] = {
            "name": asked.job,
            "budget": f"{asked.budget:f}",
            "conn_id": self.conn_id,
            "keep": f"{asked.keep:f}",
            "account": self.account,
            "labels": dict(asked.labels),
        }

    def execute_complete(self, context: Any, event: dict[str, Any], ends: float = 0.0) -> Any:
        """Take up the task again with what the trigger found."""
        self._answer = event.get("answer")
        if event["status"] == "enough":
            return self._funded(context, ends)
        if event["status"] == "timeout":
            raise AirflowSensorTimeout(_in_vain(event["reason"], self.timeout))
        raise (AirflowFailException if event["final"] else AirflowException)(event["reason"])

    def _funded(self, context: Any, ends: float) -> Any:  # noqa: ARG002
        return self._answer


def _in_vain(reason: str, waited: float) -> str:
    return f"{reason}; waited for {timedelta(seconds=waited)} in vain"
