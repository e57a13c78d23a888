"""The Airflow task that this code runs in: its context, and its labels for the events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from creditguard.airflow.sdk import AirflowException, get_current_context
from creditguard.rules.values import Label

_LABELS = ("dag_id", "task_id", "run_id", "try_number", "map_index")


def current_context() -> Mapping[str, Any] | None:
    """The context of the running task; None outside of one (a DAG file that is parsed, the triggerer, a notebook)."""
    try:
        return cast("Mapping[str, Any]", get_current_context())
    except (RuntimeError, AirflowException):
        return None


def labels(context: Mapping[str, Any]) -> dict[str, Label]:
    """What tells this task instance from all others, in the words of Airflow's own logs."""
    ti = context["ti"]
    return {name: getattr(ti, name) for name in _LABELS}


def job_name(context: Mapping[str, Any]) -> str:
    """`dag.task`: the job's name where the caller gave none."""
    ti = context["ti"]
    return f"{ti.dag_id}.{ti.task_id}"
