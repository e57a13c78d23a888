"""What a guarded run knows more in Prefect: labels of the flow run and task run, the run's log, Prefect's events, artifacts, and
what is to be done when Prefect ends the flow.

`creditguard.guarding.hosts` asks `here()` at each run, so that a plain `creditguard.guard` is at home in Prefect, too. Nothing here
asks Prefect's server before the job starts, and Prefect is not loaded where it is not loaded already.
"""

from __future__ import annotations

import _thread
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any

from creditguard.engine.engine import engine
from creditguard.engine.waiting import Ticket
from creditguard.guarding.hosts import Host
from creditguard.guarding.run import Run
from creditguard.prefect import kills
from creditguard.prefect.artifacts import Bar, await_, in_a_thread, report_page, wait
from creditguard.prefect.sinks import RunEvents, RunLog
from creditguard.rules.events import Level
from creditguard.rules.ports import EventSink
from creditguard.rules.spending import Spending
from creditguard.rules.values import Label
from creditguard.sinks.host import HostSink


def here() -> PrefectHost | None:
    """The host of the innermost flow run or task run that this code runs in; None outside of any."""
    contexts = sys.modules.get("prefect.context")
    if contexts is None:
        return None
    flow, task = contexts.FlowRunContext.get(), contexts.TaskRunContext.get()
    return PrefectHost(flow) if flow or task else None


class PrefectHost(Host):
    """A flow run, or a task run within or without one, as one guarded run sees it."""

    def __init__(self, flow: Any) -> None:
        from prefect.logging import get_run_logger

        self.labels: Mapping[str, Label] = _labels(getattr(flow, "flow_run", None))
        name = self.labels.get("task", self.labels.get("flow"))
        self.job: str | None = None if name is None else str(name)
        self._task_runner = getattr(flow, "task_runner", None)
        self._log = get_run_logger()
        self._context = copy_context()
        self._bar: Bar | None = None
        self._publishing = _thread.allocate_lock()
        self._is_published = False

    def sink(self, sink: EventSink) -> EventSink:
        """Prefect's events, and the run's log; or, instead of the log, the sink that the caller named."""
        return RunEvents(RunLog(self._log) if isinstance(sink, HostSink) else sink)

    def run_log(self, refusals: Level) -> RunLog:
        """The run's log, in which a refusal has another level than its own."""
        return RunLog(self._log, refusals)

    def opening(self, run: Run) -> None:
        """Have the run settled should Prefect end the flow, and its spending shown while it is watched."""
        kills.watch(run, self.ended, self._task_runner)
        plan = run._life.plan
        if plan.watch:
            self._bar = Bar(plan.job, plan.budget, plan.unit)
            engine().repeat(partial(self._show, weakref.ref(run)), run._life.interval)

    def _show(self, reference: weakref.ref[Run]) -> float | None:
        run = reference()
        if run is None or run._life.over or (run._life.entering.delivered and not run._life.is_admitted):
            return None
        if run._life.is_admitted and self._bar:
            self._in_a_thread(run, partial(self._bar.show, run.spending))
        return run._life.interval

    def ended(self, run: Run) -> None:
        """Leave the report as an artifact, once. From any thread."""
        try:
            wait(self._in_a_thread(run, partial(self._publish, run)))
        finally:
            kills.forget(run)

    async def aended(self, run: Run) -> None:
        """As `ended`, without blocking the event loop."""
        try:
            await await_(self._in_a_thread(run, partial(self._publish, run)))
        finally:
            kills.forget(run)

    def _in_a_thread(self, run: Run, work: Callable[[], object]) -> Ticket[None]:
        return self._context.copy().run(in_a_thread, run.job, work)

    def _publish(self, run: Run) -> None:
        with self._publishing:  # who comes second waits for the first
            if self._is_published:
                return
            self._is_published = True
            report_page(run.report, run._life.admission.refusal).create(_sync=True)
            if self._bar and run._life.is_admitted:
                self._bar.show(Spending(run.report.credits_consumed, run.spending.basis), last=True)


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
