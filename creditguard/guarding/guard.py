"""`guard`: the public face. Turns its options and the settings into a plan, and runs it around a block or a function."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from creditguard import settings as _settings
from creditguard.engine.engine import Engine, engine
from creditguard.engine.performance import Parts
from creditguard.errors import ConfigurationError
from creditguard.guarding import hosts
from creditguard.guarding.entry import Entry
from creditguard.guarding.run import Run, _stack
from creditguard.guarding.wiring import wire
from creditguard.rules.amounts import Amount, rounded, to_credits
from creditguard.rules.arguments import parse_name
from creditguard.rules.ports import EventSink
from creditguard.rules.secret import SecretText
from creditguard.rules.values import Admission, Plan
from creditguard.settings import CurrentSettings
from creditguard.settings.options import Options, hide_password

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from creditguard.settings.options import GuardOptions

P = ParamSpec("P")
R = TypeVar("R")


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
    wait            seconds to wait for room while the run is short, asking again every `min_interval`; it holds its budget the
                    moment that it fits. 0 (the default): it is refused at once
    shrink          whether the hold shrinks by what the run records: safe where the source shows a debit before the job can
                    record it, which the source says if this is left out
    sink            where events go; the host program's log if left out

    Options left out come from the environment and the settings file, when a run starts.

    Starting a run raises InsufficientCredits, BalanceUnavailable (AuthenticationError, RateLimited, SourceError,
    UnexpectedResponse), LedgerUnavailable, or ConfigurationError; then the job has not started. Whatever the job raises
    comes out unchanged, and ending a run raises nothing of its own, except BudgetExceeded in a job that was stopped.

    One guard may be entered many times, at once and nested, by threads and by tasks: each entry is a run of its own.
    """

    def __init__(self, name: str | None = None, **options: Unpack[GuardOptions]) -> None:
        hide_password(options)
        if callable(name):
            raise TypeError("write @guard(budget=...), with its budget, not @guard")
        try:
            self._name = None if name is None else parse_name(name, "name")
            self._options = Options.of(options)
        except ConfigurationError as error:
            raise hosts.here().refused(error) from None
        self._laid: _Laid | None = None
        self._open: dict[Run, Entry] = {}

    def __repr__(self) -> str:
        return f"<guard {self._name or 'of a function'}>"

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard each call of `function`; its name, signature, kind and types stay as they are."""
        from creditguard.guarding.wrap import refuse_what_is_no_function, wrap

        refuse_what_is_no_function(function)
        name = getattr(function, "__name__", type(function).__name__)
        return wrap(function, functools.partial(self._entry, name))

    def _entry(
        self, name: str | None = None, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Entry:
        """An entering to come; `name`, `args` and `kwargs` are those of a decorated call."""
        return Entry(self._run(name, args, kwargs))

    def _run(self, name: str | None = None, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Run:
        host = hosts.here()
        try:
            return self._run_in(host, name, args, kwargs or {})
        except ConfigurationError as error:
            raise host.refused(error).with_traceback(None) from None

    def _run_in(self, host: hosts.Host, name: str | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Run:
        process, ledger = engine(), self._options.ledger
        kind = ledger.get_secret_value().partition(":")[0] if isinstance(ledger, SecretText) else ""
        laid = self._lay() if kind in process.warm else process.elsewhere(self._lay)
        process.warm.add(kind)
        job = self._name or name or host.job or "unnamed"
        plan = laid.plan._replace(
            run_id=os.urandom(10).hex(),
            job=job,
            budget=self._budget_for(job, laid.settings, args, kwargs),
            labels={**host.labels, **laid.plan.labels},
        )
        parts = laid.parts if host is hosts.PLAIN else laid.parts._replace(sink=host.sink(laid.parts.sink))
        return Run(plan, parts, process, host)

    def _lay(self) -> _Laid:
        process, laid = engine(), self._laid
        over = _settings.current(), process, process.without_default_ledger
        if laid is None or laid[:3] != over:
            laid = self._laid = _Laid(*over, *wire(process, over[0], self._options))
        return laid

    def ask(self) -> Admission:
        """The pre-flight question alone, holds of others included; takes no hold. `refusal` says why a run would not start."""
        return self._run()._ask(question=True)

    async def aask(self) -> Admission:
        """As `ask`, without blocking the event loop."""
        return await self._run()._aask(question=True)

    def _budget_for(
        self, job: str, settings: CurrentSettings, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Decimal:
        budget = self._options.budget
        if callable(budget):
            return rounded(to_credits(budget(*args, **kwargs), "the budget that budget() worked out"))
        if budget is None:
            budget = settings.jobs.get(job)
        if budget is None:
            message = f"job {job!r} has no budget: pass budget=..., or set it in creditguard.toml under [jobs.{job}]"
            raise ConfigurationError(message, "budget")
        return budget

    def __getstate__(self) -> dict[str, object]:
        """What another process needs: Ray and Dask take along a function of `__main__` by value, and its guard with it."""
        return {**self.__dict__, "_laid": None, "_open": {}}

    # Entering. Which run an exit belongs to is looked up in the context (thread or task) first: there runs nest. A guard
    # that is left in another context than it was entered in (a fixture, an exit stack) closes its latest open run.

    def _keep(self, entry: Entry) -> None:
        self._open[entry.run] = entry
        _stack.set((*(run for run in _stack.get() if not run._life.over), entry.run))

    def _latest(self) -> Entry:
        for run in reversed(_stack.get()):
            if run in self._open:
                return self._open[run]
        entries = list(self._open.values())
        return next((entry for entry in reversed(entries) if not entry.run._life.over), entries[-1])

    def _let_go(self, entry: Entry, kind: type[BaseException] | None) -> None:
        self._open.pop(entry.run, None)
        # The collector may be at it, see `wrap`; a run that is over is passed over anyway.
        if kind is not GeneratorExit:
            _stack.set(tuple(run for run in _stack.get() if run is not entry.run))

    def _drop(self, entry: Entry | None) -> None:
        """The caller was interrupted on its way in or out, and nobody will leave the run any more."""
        if entry:
            entry.gone()
            self._open.pop(entry.run, None)

    def __enter__(self) -> Run:
        entry = None
        try:
            entry = self._entry()
            run = entry.__enter__()
            self._keep(entry)
            return run
        except BaseException:
            self._drop(entry)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entry = None
        try:
            entry = self._latest()
            entry.__exit__(kind, error, traceback)
            self._let_go(entry, kind)
        except BaseException:
            self._drop(entry or self._latest())
            raise

    async def __aenter__(self) -> Run:
        entry = None
        try:
            entry = self._entry()
            run = await entry.__aenter__()
            scope = run._begin_scope()
            if scope:
                scope.__enter__()
            self._keep(entry)
            return run
        except BaseException as error:
            self._drop(entry)
            if entry:
                entry.run._leave_scope(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stop: BaseException | None = None
        entry = None
        try:
            entry = self._latest()
            stop = entry.run._leave_scope(kind, error, traceback)
            await entry.__aexit__(type(stop) if stop else kind, stop or error, traceback)
            self._let_go(entry, kind)
        except BaseException:
            self._drop(entry or self._latest())
            raise
        if stop:
            raise stop from error


def extend_run(run_id: str, job: str, by: Amount, budget: Amount, sink: EventSink | None = None) -> None:
    """Ask for more for a run of another process, of which this one is a part. `budget` is what it has.

    Raises InsufficientCredits, BalanceUnavailable or LedgerError, and then nothing has changed.
    """
    run = guard(job, budget=budget, sink=sink)._run()
    run._life.adopt(run_id)
    run.extend(by)


class _Laid(NamedTuple):
    """Options as they lie over the settings of a moment, and what follows from both: the same for run after run."""

    settings: CurrentSettings
    process: Engine
    without_default_ledger: bool
    plan: Plan
    parts: Parts
