"""One guarded execution, as the job sees it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING

from creditguard.engine import sync
from creditguard.engine.meter import Findings, Meter
from creditguard.engine.ports import Ports
from creditguard.errors import BudgetExceeded, ConfigurationError, LeaseLost
from creditguard.guarding.wiring import runtime
from creditguard.rules import events, flow
from creditguard.rules.amounts import Amount, to_credits
from creditguard.rules.report import Report, make_report
from creditguard.rules.settling import Ending, Exit
from creditguard.rules.spending import Spending
from creditguard.rules.values import Admission, Balance, Mark, Outcome, Plan

if TYPE_CHECKING:
    from creditguard.engine.stopping import JobScope
    from creditguard.engine.watch import Watch

_NO_SCOPE = nullcontext()

_stack: ContextVar[tuple[Run, ...]] = ContextVar("creditguard_runs", default=())
"""The runs that this code runs in, outermost first."""


def current_run() -> Run | None:
    """The innermost guarded run that this code runs in; None outside of any. For functions that `@guard` wraps:

    @guard(budget=500)
    def enrich_all(rows):
        for row in rows:
            current_run().record(enrich(row).credits_used)
    """
    # A run may have ended in another context than this one (in a fixture, by an exit stack of another task).
    return next((run for run in reversed(_stack.get()) if run.report is None), None)


@contextmanager
def current(run: Run) -> Iterator[None]:
    """Make `run` the current one for a while."""
    token = _stack.set((*_stack.get(), run))
    try:
        yield
    finally:
        _stack.reset(token)


class Run:
    """A run, from admission to its report: what `with guard(...) as run` gives.

    It may be handed to other threads and tasks of the job: `record` is safe in all of them.
    """

    def __init__(self, plan: Plan, ports: Ports) -> None:
        self._plan = plan
        self._ports = ports
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._meter = Meter(plan)
        self._pending: int | None = None
        self._admission = Admission(plan, time.monotonic())
        self._lease_lost = False
        self._report: Report | None = None
        self._over = False
        self._watch: Watch | None = None
        self._stop_error: BudgetExceeded | None = None
        self._told = False  # the job has had its BudgetExceeded, or its cancellation
        self._scope: JobScope | None = None
        self._callbacks: list[Callable[[BudgetExceeded], object]] = []

    def __repr__(self) -> str:
        state = self._report.outcome if self._report else "running"
        return f"<Run {self.id} of {self.job!r}: {state}>"

    @property
    def id(self) -> str:
        """The run's own id, in all its events."""
        return self._plan.run_id

    @property
    def job(self) -> str:
        """The job's name."""
        return self._plan.job

    @property
    def account(self) -> str:
        """The account that it draws on: a name, or a digest."""
        return self._plan.account

    @property
    def budget(self) -> Decimal:
        """The credits that were declared."""
        return self._plan.budget

    @property
    def balance_before(self) -> Decimal | None:
        """What the account had before the run; None when it could not be read."""
        return self._admission.balance.amount if self._admission.balance else None

    @property
    def held_by_others(self) -> Decimal | None:
        """What other runs held at admission."""
        return self._admission.held_by_others

    @property
    def headroom(self) -> Decimal | None:
        """What the run could have declared at most."""
        return self._admission.headroom

    @property
    def recorded(self) -> Decimal | None:
        """The credits that were recorded so far; None before the first `record`."""
        return self._meter.recorded

    @property
    def balance_now(self) -> Decimal | None:
        """The latest balance that was read for this run: at admission, or by the watch."""
        trend = self._meter.trend
        return trend.last if trend else self.balance_before

    @property
    def burn_rate(self) -> float | None:
        """Credits that the *account* loses per minute, over the latest readings of the watch; None until there are two."""
        trend = self._meter.trend
        return trend.burn_rate if trend else None

    @property
    def time_to_empty(self) -> float | None:
        """Seconds until nothing is left on the account at this rate; None when that is not known, or nothing is being spent."""
        trend = self._meter.trend
        return trend.time_to_empty if trend else None

    @property
    def spending(self) -> Spending:
        """What this run has spent by the latest reading or record, and how sure that is."""
        return self._meter.spending

    @property
    def stopped(self) -> bool:
        """Whether the run was told to stop: see `check`."""
        return self._stop_error is not None

    @property
    def lease_lost(self) -> bool:
        """The hold lapsed while the job ran (the process was suspended, or the ledger was out of reach, for longer than a
        lease): other runs may have been admitted against the same credits."""
        return self._lease_lost

    @property
    def report(self) -> Report | None:
        """What was consumed, and how sure that is. None until the run has ended."""
        return self._report

    def record(self, credits_used: Amount) -> None:
        """Add what the job itself knows that it spent (`credits_used` in the API's answer; a refund is negative).

        Raises ConfigurationError for what is not a number.
        """
        findings = self._meter.record(to_credits(credits_used, "record()", negative=True))
        if findings.events:
            self._act(findings)

    def settled(self) -> None:
        """Say that nothing which the job started is open any more: no task that may yet be debited or refunded."""
        self.pending(0)

    def pending(self, tasks: int) -> None:
        """Say how many tasks are still open. As long as there are some the report is not settled, whatever the balance says;
        0 is `settled`."""
        if type(tasks) is not int or tasks < 0:
            raise ConfigurationError(f"pending() takes a number of tasks, 0 or more, not {tasks!r}", "pending()")
        self._pending = tasks

    def check(self) -> None:
        """A checkpoint: raises BudgetExceeded once the run was told to stop, else returns at once.

        That takes `on_overrun="stop"` or `stop_below=...`. Asynchronous jobs are cancelled, and generators get the error
        thrown in at their next step; other jobs that may run away should call this now and then, or use `on_overrun`.
        """
        if self._stop_error is not None:
            self._told = True
            raise self._exceeded(self._stop_error)

    def on_overrun(self, callback: Callable[[BudgetExceeded], object]) -> None:
        """Have `callback(error)` called once, when the run is told to stop: for a job that cannot call `check`.

        It is called in a thread of creditguard, or in the one whose `record` went over the budget, and at once if the run was
        told already. It should be quick. What it raises is logged.
        """
        with self._lock:
            if self._over:
                return
            error = self._stop_error
            if error is None:
                self._callbacks.append(callback)
        if error is not None:
            self._call(callback, error)

    # The watch

    @property
    def interval(self) -> float:
        """Seconds between two readings of the watch."""
        return max(self._plan.watch, self._plan.min_interval, 0.01)

    def observe(self, balance: Balance, mark: Mark | None, at: float) -> None:
        """Take in a reading of the watch."""
        if not self._over:
            self._act(self._meter.observe(balance.amount, mark, at))

    def _act(self, findings: Findings) -> None:
        for event in findings.events:
            if not self._over:
                self._ports.sink.emit(event)
        if findings.stop:
            self._stop(findings.stop)

    def _stop(self, error: BudgetExceeded) -> None:
        with self._lock:
            if self._over or self._stop_error:
                return
            self._stop_error = error
            callbacks, scope = self._callbacks, self._scope
            if scope:
                self._told = True
        if scope:
            scope.stop(self._exceeded(error))
        for callback in callbacks:
            self._call(callback, error)

    def _call(self, callback: Callable[[BudgetExceeded], object], error: BudgetExceeded) -> None:
        try:
            callback(self._exceeded(error))
        except Exception:
            logging.getLogger("creditguard").exception("run %s: a callback of on_overrun failed", self.id)

    def _exceeded(self, error: BudgetExceeded) -> BudgetExceeded:
        """The error as the job gets it: a new one each time. Integrations may make it one of their own."""
        return BudgetExceeded(*error.args)

    def thrown(self) -> BudgetExceeded | None:
        """What is to be thrown into a generator at its next step: once, unless it has been told in another way."""
        if self._stop_error is None or self._told:
            return None
        self._told = True
        return self._exceeded(self._stop_error)

    def stoppable(self) -> AbstractContextManager[None]:
        """A stretch of an asynchronous job, to be cancelled when the run is told to stop."""
        return self._stoppable() if self._plan.may_stop else _NO_SCOPE

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        scope = self.begin_scope()
        try:
            with scope or _NO_SCOPE:
                yield
        finally:
            self.end_scope()

    def begin_scope(self) -> JobScope | None:
        """A scope for the running task, not entered yet; None if the run is not to be stopped."""
        if not self._plan.may_stop:
            return None
        from creditguard.engine.stopping import JobScope

        scope = JobScope(self._not_told)
        with self._lock:
            self._scope = scope
            error = self._stop_error if not self._told else None
            if error:
                self._told = True
        if error:
            scope.stop(self._exceeded(error))
        return scope

    def end_scope(self) -> JobScope | None:
        """The scope that was begun, which nobody stops any more."""
        with self._lock:
            scope, self._scope = self._scope, None
        return scope

    def leave_scope(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> BaseException | None:
        """Leave the scope that `begin_scope` began. The exception to raise in place of the one that came, if there is one:
        BudgetExceeded for a job that was cancelled for what it spent."""
        scope = self.end_scope()
        try:
            if scope:
                scope.__exit__(kind, error, traceback)
        except BaseException as instead:  # trio may take its own cancellation out of a group
            return instead
        return None

    def _not_told(self) -> None:
        self._told = False

    # The guard drives a run through the following; a job has no use for them.

    def ask(self) -> Admission:
        """Whether the run could start now. Takes nothing, starts nothing."""
        return sync.run(flow.ask(self._plan), self._ports)

    async def aask(self) -> Admission:
        """As `ask`, without blocking the event loop."""
        from creditguard.engine import asynchronous

        return await asynchronous.run(flow.ask(self._plan), self._ports)

    def open(self) -> None:
        self._ports.leases.when_lost(self.id, self._on_lease_lost)
        self._admitted(sync.run(flow.enter(self._plan), self._ports))

    async def aopen(self) -> None:
        from creditguard.engine import asynchronous

        self._ports.leases.when_lost(self.id, self._on_lease_lost)
        self._admitted(await asynchronous.run(flow.enter(self._plan), self._ports))

    def _admitted(self, admission: Admission) -> None:
        self._admission = admission
        if admission.ledger_failed and self._plan.ledger_optional and not self._ports.leases.ever_answered:
            runtime.pass_over_default_ledger()
        if admission.refusal:
            self._report = make_report(admission, self._ending("refused"), Exit())
            raise admission.refusal
        self._meter.begin(admission)
        if self._plan.watch:
            from creditguard.engine.watch import watch_of

            self._watch = watch_of(self._ports.readings)
            self._watch.add(self)

    def close(self, outcome: Outcome) -> None:
        if self._elsewhere():
            return
        try:
            closing = sync.run(flow.leave(self._admission, self._ending(outcome)), self._ports)
        except Exception as bug:
            self._say(bug)
        else:
            self._closed(closing)

    async def aclose(self, outcome: Outcome) -> None:
        from creditguard.engine import asynchronous

        if self._elsewhere():
            return
        ending = self._ending(outcome)
        try:
            closing = await asynchronous.run_shielded(flow.leave(self._admission, ending), self._ports)
        except Exception as bug:
            self._say(bug)
        else:
            self._closed(closing)

    def _elsewhere(self) -> bool:
        """In a forked child that leaves its parent's `with` block: the run is the parent's to close."""
        return os.getpid() != self._pid

    def _ending(self, outcome: Outcome) -> Ending:
        # No lock: a signal handler may close the run (Airflow's do), whatever its thread was at.
        self._over = True
        if self._watch:
            self._watch.remove(self)
        meter = self._meter
        return Ending(
            outcome,
            meter.recorded,
            time.monotonic(),
            self._lease_lost,
            self._pending,
            meter.trend,
            meter.overran,
            self.stopped,
        )

    def _closed(self, closing: flow.Closing) -> None:
        self._report = closing.report
        if closing.interrupted:
            raise closing.interrupted

    def _say(self, bug: Exception) -> None:
        # A bug of ours, or a ledger of somebody else's that breaks its promises: never the job's loss.
        logging.getLogger("creditguard").error("run %s could not be closed", self.id, exc_info=bug)

    def _on_lease_lost(self, error: LeaseLost) -> None:
        self._lease_lost = True
        self._ports.sink.emit(events.lease_lost(self._admission, error))
