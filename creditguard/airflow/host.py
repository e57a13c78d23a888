"""How guarded runs behave in an Airflow task: labelled by it, not retried where that cannot help, settled when it is killed.

`creditguard.guard` and `creditguard.airflow.guard` both come here, through `creditguard.guarding.hosts`.
"""

from __future__ import annotations

import logging
import signal
from typing import Any, cast

from creditguard import settings
from creditguard.airflow import kills
from creditguard.airflow.errors import final
from creditguard.airflow.masking import mask_settings
from creditguard.airflow.sdk import AirflowException, get_current_context
from creditguard.airflow.sinks import TaskSink
from creditguard.errors import BudgetExceeded, ConfigurationError, CreditGuardError
from creditguard.guarding.hosts import Host
from creditguard.guarding.run import Run
from creditguard.rules.ports import EventSink
from creditguard.sinks.host import HostSink

_LABELS = ("dag_id", "task_id", "run_id", "try_number", "map_index")
"""What tells a task instance from all others, in the words of Airflow's own logs."""


def here() -> TaskHost | None:
    """The host of the task that this code runs in; None outside of one (a DAG file that is parsed, the triggerer, a notebook)."""
    try:
        return TaskHost(get_current_context()["ti"])
    except (RuntimeError, AirflowException):
        return None


class TaskHost(Host):
    """One Airflow task."""

    def __init__(self, ti: Any) -> None:
        self.job = f"{ti.dag_id}.{ti.task_id}"
        self.labels = {name: getattr(ti, name) for name in _LABELS}
        self._task = getattr(ti, "task", None)

    def sink(self, sink: EventSink) -> EventSink:
        """The task's log, or what the caller named in its place."""
        return TaskSink() if type(sink) is HostSink else sink

    def opening(self, run: Run) -> None:
        mask_settings(settings.current())
        kills.watch(run)
        if getattr(self._task, "killed", False):  # when there was no run yet that could be ended
            raise SystemExit(128 + signal.SIGTERM)

    def refused(self, error: CreditGuardError) -> CreditGuardError:
        if isinstance(error, ConfigurationError):  # no event tells of it, and Airflow shows a traceback first
            logging.getLogger("creditguard").error("%s", error)
        return final(error)

    def exceeded(self, error: BudgetExceeded) -> BudgetExceeded:
        return cast("BudgetExceeded", final(error))

    def ended(self, run: Run) -> None:
        kills.forget(run)
