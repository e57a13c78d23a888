"""`guard` for code inside an Airflow task, by an Airflow connection."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from creditguard.airflow.masking import mask_environment
from creditguard.airflow.sdk import AirflowNotFoundException
from creditguard.errors import ConfigurationError
from creditguard.guarding import hosts
from creditguard.guarding.guard import guard as core_guard
from creditguard.guarding.run import Run
from creditguard.rules.values import Admission
from creditguard.settings.options import hide_password

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from creditguard.airflow.hooks import ApiMallHook
    from creditguard.settings.options import GuardOptions

P = ParamSpec("P")
R = TypeVar("R")


class guard(core_guard):  # noqa: N801 - as the one of creditguard
    """`creditguard.guard` by an Airflow connection; takes all its arguments, and

    conn_id     the Airflow connection that holds the key and the gateway; the environment's if left out.
                apimall_conn_id is another name for it

    All else that a guard does in an Airflow task, that of creditguard does there too: the run's labels (dag_id, task_id,
    run_id, try_number, map_index) come from the task, and so does its name if none is given. When credits are short the task
    fails without a retry: the error is an InsufficientCredits and an AirflowFailException. When Airflow kills the task, the
    run is still settled. Outside of a task it is an ordinary guard.

        @task
        @guard(budget=500, conn_id="apimall_default")
        def enrich(rows): ...
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        conn_id: str | None = None,
        apimall_conn_id: str | None = None,
        **options: Unpack[GuardOptions],
    ) -> None:
        hide_password(options)
        # Not at import: in a triggerer masking lets other triggers run, and they would find this module half made.
        mask_environment()
        super().__init__(name, **options)
        self._conn_id = apimall_conn_id or conn_id

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard each call of `function`, as the core's guard does."""
        guarded = super().__call__(function)
        # `@task` infers multiple_outputs from it, and would look its names up where the wrapper lives.
        with contextlib.suppress(Exception):  # a name for type checkers only: left as it is, as `@task` would
            hints = {"return": typing.get_type_hints(function)["return"]}
            guarded.__annotations__ = {**guarded.__annotations__, **hints}
        return guarded

    def connect(self) -> None:
        """Look the connection up, once. When a run starts, not before: a decorator is made while the DAG file is parsed."""
        hook = self._hook()
        if hook:
            with _never_retried():
                self._use(hook)

    async def aconnect(self) -> None:
        """As `connect`, without blocking the event loop."""
        hook = self._hook()
        if hook:
            with _never_retried():
                await hook.aget_conn()
            self._use(hook)

    async def aask(self) -> Admission:
        await self.aconnect()
        return await super().aask()

    async def __aenter__(self) -> Run:
        await self.aconnect()
        return await super().__aenter__()

    def _run(self, name: str | None = None, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Run:
        self.connect()
        return super()._run(name, args, kwargs)

    def _hook(self) -> ApiMallHook | None:
        if self._conn_id is None or self._options.source is not None:
            return None
        from creditguard.airflow.hooks import ApiMallHook

        return ApiMallHook(self._conn_id)

    def _use(self, hook: ApiMallHook) -> None:
        self._options = self._options._replace(source=hook.get_conn(), account=self._options.account or hook.account)


@contextlib.contextmanager
def _never_retried() -> Iterator[None]:
    """A connection that cannot be used cannot be used the next time, either."""
    try:
        yield
    except ConfigurationError as error:
        raise hosts.here().refused(error) from None
    except AirflowNotFoundException as error:
        raise hosts.here().refused(ConfigurationError(str(error), "conn_id")) from None


class TaskGuard(guard):
    """The guard of one call, which remembers its run: for `@task.credit_guard`."""

    run: Run | None = None

    @property
    def refused(self) -> bool:
        """Whether the run was asked for and not admitted: then the function has not been called."""
        try:
            return self.run is not None and self.run.report.outcome == "refused"
        except RuntimeError:
            return False

    def _run(self, name: str | None = None, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Run:
        self.run = super()._run(name, args, kwargs)
        return self.run
