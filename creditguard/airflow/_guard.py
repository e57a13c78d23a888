"""`guard` for code inside an Airflow task."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from creditguard.airflow.context import current_context, job_name
from creditguard.airflow.masking import mask_environment
from creditguard.airflow.runs import make_run
from creditguard.engine.ports import Ports
from creditguard.guarding.guard import guard as core_guard
from creditguard.guarding.run import Run
from creditguard.rules.values import Plan

if TYPE_CHECKING:
    from creditguard.airflow.hooks import ApiMallHook

P = ParamSpec("P")
R = TypeVar("R")

mask_environment()


class guard(core_guard):  # noqa: N801 - as the one of creditguard
    """`creditguard.guard`, at home in an Airflow task; takes all its arguments, and

    conn_id     the Airflow connection that holds the key and the gateway; the environment's if left out

    The run's labels (dag_id, task_id, run_id, try_number, map_index) come from the task, and so does its name if none is given.
    When credits are short the task fails without a retry: the error is an InsufficientCredits and an AirflowFailException. When
    Airflow kills the task, the run is still settled. Outside of a task it is `creditguard.guard`.

        @task
        @guard(budget=500, conn_id="apimall_default")
        def enrich(rows): ...
    """

    def __init__(self, name: str | None = None, *, conn_id: str | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self._conn_id = conn_id

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard each call of `function`, as the core's guard does."""
        guarded = super().__call__(function)
        # `@task` infers multiple_outputs from it, and would look its names up where the wrapper lives.
        with contextlib.suppress(Exception):  # a name for type checkers only: left as it is, as `@task` would
            hints = {"return": typing.get_type_hints(function)["return"]}
            guarded.__annotations__ = {**guarded.__annotations__, **hints}
        return guarded

    def new_run(
        self, name: str | None = None, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Run:
        self.connect()
        context = current_context()
        return super().new_run(name or (job_name(context) if context else None), args, kwargs)

    def _make_run(self, plan: Plan, ports: Ports) -> Run:
        return make_run(plan, ports)

    async def __aenter__(self) -> Run:
        hook = self._hook()
        if hook:
            await hook.aget_conn()
            self._use(hook)
        return await super().__aenter__()

    def connect(self) -> None:
        """Look the connection up, once. When a run starts, not before: a decorator is made while the DAG file is parsed."""
        hook = self._hook()
        if hook:
            self._use(hook)

    def _hook(self) -> ApiMallHook | None:
        if self._conn_id is None or self._source is not None:
            return None
        from creditguard.airflow.hooks import ApiMallHook

        return ApiMallHook(self._conn_id)

    def _use(self, hook: ApiMallHook) -> None:
        self._source = hook.get_conn()
        self._account = self._account or hook.account


class TaskGuard(guard):
    """The guard of one call, which remembers its run: for `@task.credit_guard`."""

    run: Run | None = None

    def new_run(
        self, name: str | None = None, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Run:
        self.run = super().new_run(name, args, kwargs)
        return self.run
