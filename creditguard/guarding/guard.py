"""`guard`: the public face. Turns its arguments and the settings into a plan, and runs it around a block or a function."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from importlib import import_module
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from creditguard import settings as _settings
from creditguard.engine.ports import Ports
from creditguard.errors import ConfigurationError
from creditguard.guarding.run import Run, _stack
from creditguard.guarding.wiring import runtime
from creditguard.rules.amounts import Amount, rounded, to_credits
from creditguard.rules.arguments import (
    parse_name,
    parse_overrun,
    parse_policy,
    parse_seconds,
    parse_settle,
    parse_thresholds,
)
from creditguard.rules.ports import BalanceSource, EventSink, Ledger
from creditguard.rules.report import outcome_of
from creditguard.rules.values import Admission, Label, OnOverrun, OnShort, Plan
from creditguard.settings import CurrentSettings
from creditguard.sinks.host import HostSink

P = ParamSpec("P")
R = TypeVar("R")

_SINK = HostSink()
_THRESHOLDS = (0.5, 0.8, 1.0)
_SHARES = parse_thresholds(_THRESHOLDS, "thresholds")


class guard:  # noqa: N801 - read at its place of use: `with guard(...)`, `@guard(...)`
    """Guard a job: a context manager, an async context manager, and a decorator.

        with guard("nightly-enrich", budget=500) as run:
            ...

        @guard(budget=lambda rows: 2 * len(rows))
        async def enrich(rows): ...

    name            the job's name in events and in the settings file; a decorated function's own name if left out
    budget          the credits that the job may need: a number, or a callable that works it out from the call's own
                    arguments; from `[jobs.NAME]` of the settings file if left out. 0 is a budget
    on_short        "abort" (the default): raise InsufficientCredits; "warn": log an event and start all the same
    on_unreadable   what to do when the balance or the ledger cannot be read, "abort" (raise) or "warn" (start);
                    as `on_short` if left out
    keep            credits that must stay on the account after the job; negative for an overdraft that is allowed
    source          where the balance is read: an object with `read()`; API Mall if left out
    ledger          where holds are kept: "none", "sqlite:///PATH", "postgresql://..." or a Ledger
    account         the account's name, where several keys draw on one pool
    settle          seconds to wait after the job before the last reading; or "stable": read until two readings agree, for a
                    minute at most ("stable:120" for two). The hold lasts until then
    watch           seconds between readings of the balance while the job runs; none if left out. One reading serves all
                    watched runs of the account; never more often than `min_interval`
    thresholds      shares of the budget; a watched run logs a `creditguard.threshold` event as it passes each
    on_overrun      what to do about a run that spends more than its budget, by what it records itself, or (with `watch`) by
                    the account, if no other guarded run is on it: "warn" (the default): log an event, and interrupt
                    nothing; "stop": see Run.check and Run.on_overrun
    stop_below      stop the run when less than this is left on the account, whoever spent it. Needs `watch`
    min_interval    politeness: seconds between two readings of a run, its first and last apart (default 15)
    drift_tolerance how far the account's loss and what the job recorded may part before that is worth a
                    `creditguard.drift` event; a credit or 1 % of what was recorded, whichever is more, if left out
    labels          the caller's own words for the events, by name
    max_age         seconds for which a balance read by another process may serve the admission (default 0: read it)
    sink            where events go; the host program's log if left out

    Settings left out come from the environment and the settings file (docs/settings.md), when a run starts.

    Starting a run raises InsufficientCredits, BalanceUnavailable (AuthenticationError, RateLimited, SourceError,
    UnexpectedResponse), LedgerUnavailable, or ConfigurationError; then the job has not started. Whatever the job raises
    comes out unchanged, and ending a run raises nothing of its own, except BudgetExceeded in a job that was stopped.

    One guard may be entered many times, at once and nested, by threads and by tasks: each entry is a run of its own.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        budget: Amount | Callable[..., Amount] | None = None,
        on_short: OnShort | None = None,
        on_unreadable: OnShort | None = None,
        keep: Amount | None = None,
        source: str | BalanceSource | None = None,
        ledger: str | Ledger | None = None,
        account: str | None = None,
        settle: float | str | None = None,
        watch: float | None = None,
        thresholds: Iterable[Amount] = _THRESHOLDS,
        on_overrun: OnOverrun = "warn",
        stop_below: Amount | None = None,
        min_interval: float | None = None,
        drift_tolerance: Amount | None = None,
        labels: Mapping[str, Label] | None = None,
        max_age: float | None = None,
        sink: EventSink | None = None,
    ) -> None:
        if callable(name):
            raise TypeError("write @guard(budget=...), with its budget, not @guard")
        self._name = None if name is None else parse_name(name, "name")
        self._budget: Decimal | Callable[..., Amount] | None = (
            budget if budget is None or callable(budget) else rounded(to_credits(budget))
        )
        self._on_short = None if on_short is None else parse_policy(on_short, "on_short")
        self._on_unreadable = None if on_unreadable is None else parse_policy(on_unreadable, "on_unreadable")
        self._keep = None if keep is None else rounded(to_credits(keep, "keep", negative=True))
        self._source = source
        self._ledger = ledger
        self._account = None if account is None else parse_name(account, "account")
        self._settle = None if settle is None else parse_settle(settle, "settle")
        self._watch = 0.0 if watch is None else parse_seconds(watch, "watch")
        self._thresholds = _SHARES if thresholds is _THRESHOLDS else parse_thresholds(thresholds, "thresholds")
        self._on_overrun = parse_overrun(on_overrun, "on_overrun")
        self._stop_below = None if stop_below is None else to_credits(stop_below, "stop_below", negative=True)
        if self._stop_below is not None and not self._watch:
            raise ConfigurationError("stop_below needs watch=..., the seconds between readings", "stop_below")
        self._min_interval = None if min_interval is None else parse_seconds(min_interval, "min_interval")
        self._drift_tolerance = None if drift_tolerance is None else to_credits(drift_tolerance, "drift_tolerance")
        self._max_age = None if max_age is None else parse_seconds(max_age, "max_age")
        self._labels = dict(labels or {})
        self._sink: EventSink = sink or _SINK
        self._open: list[Run] = []

    def __repr__(self) -> str:
        return f"<guard {self._name or 'of a function'}>"

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard each call of `function`; its name, signature, kind and types stay as they are."""
        from creditguard.guarding.wrap import wrap

        _refuse_what_is_no_function(function)
        name = self._name or getattr(function, "__name__", type(function).__name__)
        return wrap(function, lambda args, kwargs: self.new_run(name, args, kwargs))

    def new_run(
        self, name: str | None = None, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Run:
        """A run that has not been opened. For integrations; `name`, `args` and `kwargs` are those of a decorated call."""
        settings = _settings.current()
        job = self._name or name or "unnamed"
        wiring = runtime.wire(settings, self._sink, source=self._source, ledger=self._ledger, account=self._account)
        on_short = self._on_short or settings.on_short
        settle = settings.settle if self._settle is None else self._settle
        plan = Plan(
            run_id=os.urandom(10).hex(),
            job=job,
            account=wiring.account,
            source=wiring.source,
            unit=wiring.unit,
            budget=self._budget_for(job, settings, args, kwargs or {}),
            keep=settings.keep if self._keep is None else self._keep,
            on_short=on_short,
            on_unreadable=self._on_unreadable or settings.on_unreadable or on_short,
            ledger_optional=wiring.ledger_optional,
            max_age=settings.max_age if self._max_age is None else self._max_age,
            settle=settle.seconds,
            settle_stable=settle.stable,
            min_interval=settings.min_interval if self._min_interval is None else self._min_interval,
            drift_tolerance=self._drift_tolerance,
            watch=self._watch,
            thresholds=self._thresholds,
            on_overrun=self._on_overrun,
            stop_below=self._stop_below,
            labels=self._labels,
        )
        return self._make_run(plan, wiring.ports)

    def _make_run(self, plan: Plan, ports: Ports) -> Run:
        """For guards of other kinds, whose runs know more. In a task of Airflow that is every guard: it takes its labels from
        there, is settled when the task is killed, and is not retried when short."""
        if "airflow" in sys.modules:
            with suppress(ImportError):  # an Airflow without what the extra needs
                run: Run = import_module("creditguard.airflow.runs").make_run(plan, ports)
                return run
        return Run(plan, ports)

    def ask(self) -> Admission:
        """The pre-flight question alone, holds of others included; takes no hold. `refusal` says why a run would not start."""
        return self.new_run().ask()

    async def aask(self) -> Admission:
        """As `ask`, without blocking the event loop."""
        return await self.new_run().aask()

    def _budget_for(
        self, job: str, settings: CurrentSettings, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Decimal:
        budget = self._budget
        if callable(budget):
            return rounded(to_credits(budget(*args, **kwargs), "the budget that budget() worked out"))
        if budget is None:
            budget = settings.jobs.get(job)
        if budget is None:
            message = f"job {job!r} has no budget: pass budget=..., or set it in creditguard.toml under [jobs.{job}]"
            raise ConfigurationError(message, "budget")
        return budget

    # Entering. Which run an exit belongs to is looked up in the context (thread or task) first: there runs nest. A guard
    # that is left in another context than it was entered in (a fixture, an exit stack) closes its latest open run.

    def _entered(self, run: Run) -> Run:
        self._open.append(run)
        _stack.set((*(other for other in _stack.get() if other.report is None), run))
        return run

    def _left(self) -> Run:
        stack = _stack.get()
        run = next((run for run in reversed(stack) if run in self._open), None)
        if run is None:
            return self._open.pop()
        _stack.set(tuple(other for other in stack if other is not run))
        self._open.remove(run)
        return run

    def __enter__(self) -> Run:
        run = self.new_run()
        run.open()
        return self._entered(run)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left().close(outcome_of(error))

    async def __aenter__(self) -> Run:
        run = self.new_run()
        await run.aopen()
        scope = run.begin_scope()
        if scope:
            scope.__enter__()
        return self._entered(run)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run = self._left()
        stop = run.leave_scope(kind, error, traceback)
        await run.aclose(outcome_of(stop or error))
        if stop:
            raise stop from error


def _refuse_what_is_no_function(function: object) -> None:
    """Tell the mistakes that would otherwise show only when money is gone: a guard around a task object runs when the task
    is *defined*, and one around a class or a classmethod object guards nothing."""
    module = type(function).__module__
    for engine in ("airflow", "prefect"):
        if module == engine or module.startswith(f"{engine}."):
            raise TypeError(f"the order is @task (or @flow) over @guard: this guard was handed {engine}'s own object")
    if isinstance(function, type) or not callable(function):
        kind = "a class" if isinstance(function, type) else type(function).__name__
        raise TypeError(f"guard wraps functions, not {kind}; put @classmethod and the like above @guard")
