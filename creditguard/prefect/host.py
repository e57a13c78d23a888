"""What a guarded run knows more in Prefect: labels of the flow run and task run, the run's log, Prefect's events, an artifact.

`creditguard.guarding.hosts` asks `here()` at each run, so that a plain `creditguard.guard` is at home in Prefect, too. Nothing here
asks Prefect's server, and Prefect is not loaded where it is not loaded already.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from creditguard.guarding.hosts import Host
from creditguard.guarding.run import Run
from creditguard.prefect.artifacts import apublish, publish
from creditguard.prefect.sinks import RunEvents, RunLog
from creditguard.rules.ports import EventSink
from creditguard.rules.values import Label
from creditguard.sinks.host import HostSink


def here() -> PrefectHost | None:
    """The host of the innermost flow run or task run that this code runs in; None outside of any."""
    contexts = sys.modules.get("prefect.context")
    if contexts is None:
        return None
    flow, task = contexts.FlowRunContext.get(), contexts.TaskRunContext.get()
    return PrefectHost(getattr(flow, "flow_run", None)) if flow or task else None


class PrefectHost(Host):
    """A flow run, or a task run within or without one."""

    def __init__(self, flow_run: Any) -> None:
        from prefect.logging import get_run_logger

        self.labels: Mapping[str, Label] = _labels(flow_run)
        name = self.labels.get("task", self.labels.get("flow"))
        self.job: str | None = None if name is None else str(name)
        self._log = get_run_logger()

    def sink(self, sink: EventSink) -> EventSink:
        """Prefect's events, and the run's log; or, instead of the log, the sink that the caller named."""
        return RunEvents(RunLog(self._log) if isinstance(sink, HostSink) else sink)

    def ended(self, run: Run) -> None:
        """Leave the report as an artifact."""
        publish(run.report)

    async def aended(self, run: Run) -> None:
        """As `ended`, without blocking the event loop."""
        await apublish(run.report)


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
