"""`guard` for Prefect: the core's guard, whose runs take labels from Prefect, log to the run's log, and leave an artifact."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from creditguard.engine.ports import Ports
from creditguard.errors import CreditGuardError
from creditguard.guarding import guard as _guard
from creditguard.guarding.run import Run
from creditguard.prefect.artifacts import apublish, publish
from creditguard.prefect.places import Place, here
from creditguard.prefect.sinks import RunEvents, RunLog
from creditguard.rules.values import Outcome, Plan
from creditguard.sinks.host import HostSink

P = ParamSpec("P")
R = TypeVar("R")


class guard(_guard.guard):  # noqa: N801 - as the core's
    """`creditguard.guard`, at home in Prefect; every argument is the same. Inside of a flow or a task

    - events carry the labels `flow`, `flow_run`, `flow_run_id`, `task`, `task_run`, `task_run_id`, `run_count`, `deployment`
      and `deployment_id`, as far as they apply, beside those of `labels` (which win);
    - events go to the run's log, unless `sink` says otherwise, and are events of Prefect's, too;
    - the report becomes a table artifact.

    Outside of both it is the core's guard. Put it under `@task` or `@flow`:

        @task(retries=3, retry_condition_fn=retry_unless_short)
        @guard(budget=lambda rows: 2 * len(rows))
        def enrich(rows): ...
    """

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard each call of `function`, as the core's guard does."""
        guarded = super().__call__(function)
        # @flow looks up the names in annotations that are text where the wrapper lives, and not where the function does.
        guarded.__signature__ = _resolved(function)  # type: ignore[attr-defined]
        return guarded

    def _make_run(self, plan: Plan, ports: Ports) -> Run:
        place = here()
        return super()._make_run(plan, ports) if place is None else _PrefectRun(plan, ports, place)


def _resolved(function: Callable[..., Any]) -> inspect.Signature:
    """The function's signature, with the types of its parameters instead of their names."""
    signature, names = inspect.signature(function), getattr(inspect.unwrap(function), "__globals__", {})

    def resolved(annotation: Any) -> Any:
        try:
            return eval(annotation, names) if isinstance(annotation, str) else annotation  # noqa: S307 - as inspect does
        except Exception:  # a name for type checkers only, or of what is defined further down
            return annotation

    parameters = [each.replace(annotation=resolved(each.annotation)) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters)


class _PrefectRun(Run):
    """A run that knows the Prefect run which it belongs to."""

    def __init__(self, plan: Plan, ports: Ports, place: Place) -> None:
        log = RunLog(place) if isinstance(ports.sink, HostSink) else ports.sink
        super().__init__(
            replace(plan, labels={**place.labels, **plan.labels}),
            replace(ports, sink=RunEvents(place, log)),
        )

    def open(self) -> None:
        try:
            super().open()
        except CreditGuardError:
            if self.report:
                publish(self.report)
            raise

    async def aopen(self) -> None:
        try:
            await super().aopen()
        except CreditGuardError:
            if self.report:
                await apublish(self.report)
            raise

    def close(self, outcome: Outcome) -> None:
        try:
            super().close(outcome)
        finally:
            if self.report:
                publish(self.report)

    async def aclose(self, outcome: Outcome) -> None:
        try:
            await super().aclose(outcome)
        finally:
            if self.report:
                await apublish(self.report)
