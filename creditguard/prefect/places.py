"""Where in Prefect the current code runs: the labels and the log of that flow run or task run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from creditguard.rules.values import Label


@dataclass(frozen=True, slots=True)
class Place:
    """A flow run, or a task run within or without one.

    It is looked up once, when a guarded run is made: the events of that run may come from threads which know nothing of
    Prefect's context (a lost lease is told by the thread that renews it).
    """

    labels: Mapping[str, Label]
    logger: logging.Logger | logging.LoggerAdapter[Any]
    context: Context

    def call(self, function: Callable[[], object]) -> None:
        """Call the function as if it were called here. For logs and events, from any thread."""
        self.context.copy().run(function)  # a copy, for a context can be entered by one thread at a time


def here() -> Place | None:
    """The innermost run that this code runs in; None outside of any. Asks no server."""
    from prefect.context import FlowRunContext, TaskRunContext

    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow is None and task is None:
        return None
    from prefect.logging import get_run_logger

    return Place(_labels(getattr(flow, "flow_run", None)), get_run_logger(), copy_context())


def _labels(the_flow_run: Any) -> dict[str, Label]:
    from prefect.runtime import flow_run, task_run

    found: dict[str, Label | None] = {
        "task": task_run.task_name,
        "task_run": task_run.name,
        "task_run_id": task_run.id,
        "run_count": task_run.run_count,
    }
    if the_flow_run is not None:  # else prefect.runtime would ask the server
        found |= {"flow": flow_run.flow_name, "flow_run": flow_run.name, "flow_run_id": flow_run.id}
        found["run_count"] = task_run.run_count or flow_run.run_count
        # prefect.runtime.deployment asks the server as well; these two are what the engine itself goes by.
        if the_flow_run.deployment_id is not None:
            found["deployment_id"] = str(the_flow_run.deployment_id)
            found["deployment"] = os.environ.get("PREFECT__DEPLOYMENT_NAME")
    return {name: value for name, value in found.items() if value is not None}
