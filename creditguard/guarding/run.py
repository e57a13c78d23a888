"""One guarded execution, as the job sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from decimal import Decimal
from types import TracebackType

from creditguard.engine.engine import Engine
from creditguard.engine.lifecycle import Lifecycle
from creditguard.engine.performance import Parts
from creditguard.engine.stopping import JobScope, Stopping
from creditguard.engine.waiting import sender, shielded
from creditguard.errors import BudgetExceeded, ConfigurationError, CreditGuardError, LeaseLost, LedgerError
from creditguard.guarding.hosts import Host
from creditguard.rules.amounts import Amount, to_credits
from creditguard.rules.report import Report
from creditguard.rules.spending import Spending
from creditguard.rules.values import Admission, Outcome, Plan

_stack: ContextVar[tuple[Run, ...]] = ContextVar("creditguard_runs", default=())
"""The runs that this code runs in, outermost first."""


def current_run() -> Run:
    """The innermost guarded run that this code runs in. For functions that `@guard` wraps:

        @guard(budget=500)
        def enrich_all(rows):
            for row in rows:
                current_run().record(enrich(row).credits_used)

    Raises LookupError outside of any.
    """
    if runs := _under_way():
        return runs[-1]
    raise LookupError("no guarded run here: current_run() is for code inside of a guard")


def _under_way() -> list[Run]:
    """The runs of this context, the innermost last. One of them may have ended in another context (in a fixture, by an exit stack of
    another task), or a signal may have come before it was taken away."""
    return [run for run in _stack.get() if not run._life.over]


@contextmanager
def current(run: Run) -> Iterator[None]:
    """Make `run` the current one for a while."""
    _stack.set((*_under_way(), run))
    try:
        yield
    finally:  # not by a token: a coroutine may be closed in another context than it ran in
        _stack.set(tuple(other for other in _under_way() if other is not run))


class Run:
    """A run, from admission to its report: what `with guard(...) as run` gives.

    It may be handed to other threads and tasks of the job: `record` is safe in all of them.
    """

    def __init__(self, plan: Plan, parts: Parts, engine: Engine, host: Host) -> None:
        stopping = Stopping(f"run {plan.run_id}", lambda error: host.exceeded(BudgetExceeded(*error.args)))
        self._life = Lifecycle(plan, parts, engine, stopping)
        self._host = host

    def __repr__(self) -> str:
        report = self._life.report
        return f"<Run {self.id} of {self.job!r}: {report.outcome if report else 'running'}>"

    def _repr_html_(self) -> str:
        """For a notebook: the report's sentence, or that there is none yet."""
        from html import escape

        report = self._life.report
        return f"<div>{escape(str(report) if report else f'{self.job}: running, {self.budget:f} credits held')}</div>"

    @property
    def id(self) -> str:
        """The run's own id, in all its events."""
        return self._life.plan.run_id

    @property
    def job(self) -> str:
        """The job's name."""
        return self._life.plan.job

    @property
    def account(self) -> str:
        """The account that it draws on: a name, or a digest."""
        return self._life.plan.account

    @property
    def budget(self) -> Decimal:
        """The credits that were declared."""
        return self._life.plan.budget

    @property
    def balance_before(self) -> Decimal | None:
        """What the account had before the run; None when it could not be read."""
        balance = self._life.admission.balance
        return balance.amount if balance else None

    @property
    def held_by_others(self) -> Decimal | None:
        """What other runs held at admission."""
        return self._life.admission.held_by_others

    @property
    def headroom(self) -> Decimal | None:
        """What the run could have declared at most."""
        return self._life.admission.headroom

    @property
    def recorded(self) -> Decimal | None:
        """The credits that were recorded so far; None before the first `record`."""
        return self._life.meter.recorded

    @property
    def balance_now(self) -> Decimal | None:
        """The latest balance that was read for this run: at admission, or by the watch."""
        trend = self._life.meter.trend
        return trend.last if trend else self.balance_before

    @property
    def burn_rate(self) -> float | None:
        """Credits that the *account* loses per minute, over the latest readings of the watch; None until there are two."""
        trend = self._life.meter.trend
        return trend.burn_rate if trend else None

    @property
    def time_to_empty(self) -> float | None:
        """Seconds until nothing is left on the account at this rate; None when that is not known, or nothing is being spent."""
        trend = self._life.meter.trend
        return trend.time_to_empty if trend else None

    @property
    def spending(self) -> Spending:
        """What this run has spent by the latest reading or record, and how sure that is."""
        return self._life.meter.spending

    @property
    def stopped(self) -> bool:
        """Whether the run was told to stop: see `check`."""
        return self._life.stopping.error is not None

    @property
    def lease_lost(self) -> bool:
        """The hold lapsed while the job ran (the process was suspended, or the ledger was out of reach, for longer than a
        lease): other runs may have been admitted against the same credits."""
        return self._life.lease_is_lost

    @property
    def report(self) -> Report:
        """What was consumed, and how sure that is. Raises RuntimeError until the run has ended."""
        report = self._life.report
        if report is None:
            state = "is being settled" if self._life.over else "has not ended"
            raise RuntimeError(f"run {self.id} of {self.job!r} {state}: its report is there after the `with` block")
        return report

    def record(self, credits_used: Amount) -> None:
        """Add what the job itself knows that it spent (`credits_used` in the API's answer; a refund is negative).

        The hold shrinks by it within a second, if the source debits at once (`guard(shrink=...)`); a refund does not grow it.
        Once the run has ended it does nothing. Raises ConfigurationError for what is not a number.
        """
        self._life.record(to_credits(credits_used, "record()", negative=True))

    def extend(self, credits_more: Amount) -> None:
        """Ask for so many credits more, by the rules of admission: budget and hold grow by them.

        Raises InsufficientCredits, BalanceUnavailable or LedgerError, and then nothing has changed and the job decides;
        ConfigurationError for what is not an amount; RuntimeError for a run that is not under way.
        """
        ticket, at_most = self._life.ask_for_more(to_credits(credits_more, "extend()"))
        ticket.wait(at_most)
        self._life.answer(ticket)

    async def aextend(self, credits_more: Amount) -> None:
        """As `extend`, without blocking the event loop."""
        put = sender(self._life.engine.service)
        ticket, at_most = self._life.ask_for_more(to_credits(credits_more, "aextend()"), put)
        await ticket.await_(at_most)
        self._life.answer(ticket)

    def settled(self) -> None:
        """Say that nothing which the job started is open any more: no task that may yet be debited or refunded."""
        self.pending(0)

    def pending(self, tasks: int) -> None:
        """Say how many tasks are still open. As long as there are some the report is not settled, whatever the balance says;
        0 is `settled`. Raises ConfigurationError for what is not a number of tasks."""
        if type(tasks) is not int or tasks < 0:
            raise ConfigurationError(f"pending() takes a number of tasks, 0 or more, not {tasks!r}", "pending()")
        self._life.pending = tasks

    def check(self) -> None:
        """A checkpoint: raises BudgetExceeded once the run was told to stop, and LeaseLost if it was closed from outside, by an
        orchestrator that kills the job, and so holds nothing any more. Else it returns at once.

        That takes `on_overrun="stop"` or `stop_below=...`. Asynchronous jobs are cancelled, and generators get the error
        thrown in at their next step; other jobs that may run away should call this now and then, or use `on_overrun`.
        """
        self._life.stopping.check()
        if self._life.closed_early:
            raise LeaseLost(
                f"the run of {self.job!r} was closed from outside: it holds nothing any more", None, self.id
            )

    def on_overrun(self, callback: Callable[[BudgetExceeded], object]) -> None:
        """Have `callback(error)` called once, when the run is told to stop: for a job that cannot call `check`.

        It is called in a thread of creditguard, or in the one whose `record` went over the budget, and at once if the run was
        told already. It should be quick. What it raises is logged.
        """
        if not self._life.over:
            self._life.stopping.call(callback)

    # The guard opens and closes a run by the following; a job has no use for them.

    def _ask(self, *, question: bool = False) -> Admission:
        life = self._life
        life.entering.wait(life.hand_over(question=question))
        if not life.entering.delivered:
            life.entering.wait(life.late())
        return life.admitted()

    async def _aask(self, *, question: bool = False) -> Admission:
        life = self._life
        await life.entering.await_(life.hand_over(sender(life.engine.service), question=question))
        if not life.entering.delivered:
            await life.entering.await_(life.late())
        return life.admitted()

    def _open(self) -> CreditGuardError | None:
        """Enter; why the run is refused, for the entry to raise."""
        self._host.opening(self)
        try:
            refusal = self._ask().refusal
        except LedgerError as error:
            refusal = self._life.alone(error)
        if not refusal:
            return None
        self._host.ended(self)
        return self._host.refused(refusal)

    async def _aopen(self) -> CreditGuardError | None:
        self._host.opening(self)
        try:
            refusal = (await self._aask()).refusal
        except LedgerError as error:
            refusal = self._life.alone(error)
        if not refusal:
            return None
        await self._host.aended(self)
        return self._host.refused(refusal)

    def _close(self, outcome: Outcome) -> None:
        life = self._life
        try:
            at_most = life.hand_back(outcome)
            if at_most:
                life.leaving.wait(at_most)
                if not life.leaving.delivered:
                    life.leaving.wait(life.late())
        except BaseException:
            life.leaving.wait(life.hurry())
            raise
        finally:
            if self._has_closed():
                self._host.ended(self)

    async def _aclose(self, outcome: Outcome) -> None:
        life = self._life
        try:
            with shielded() if outcome == "cancelled" else nullcontext():
                at_most = life.hand_back(outcome, sender(life.engine.service))
                if at_most:
                    await life.leaving.await_(at_most)
                    if not life.leaving.delivered:
                        await life.leaving.await_(life.late())
        except GeneratorExit:
            life.hurry()  # and no await: the coroutine is being closed
            raise
        except BaseException:
            with shielded():
                await life.leaving.await_(life.hurry())
                if self._has_closed():
                    await self._host.aended(self)
            raise
        if self._has_closed():
            with shielded():
                await self._host.aended(self)

    def _has_closed(self) -> bool:
        bug = self._life.leaving.failure
        if bug is not None:  # never the job's loss; not raised and caught: here the host's own exceptions come by, too
            logging.getLogger("creditguard").error("run %s could not be closed", self.id, exc_info=bug)
        return self._life.leaving.delivered and bug is None

    def _begin_scope(self) -> JobScope | None:
        """A scope for the running task, not entered yet; None if the run is not to be stopped."""
        return self._life.stopping.begin_scope() if self._life.plan.may_stop else None

    def _leave_scope(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> BaseException | None:
        """Leave the scope that `_begin_scope` began. The exception to raise in place of the one that came, if there is one:
        BudgetExceeded for a job that was cancelled for what it spent."""
        scope = self._life.stopping.end_scope()
        try:
            if scope:
                scope.__exit__(kind, error, traceback)
        except BaseException as instead:  # trio may take its own cancellation out of a group
            return instead
        return None

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """A stretch of an asynchronous job, to be cancelled when the run is told to stop."""
        scope = self._begin_scope()
        if scope is None:
            yield
            return
        try:
            with scope:
                yield
        finally:
            self._life.stopping.end_scope()
