"""One run in the engine's keeping, from the moment that its admission is asked for until its report is filed.

The upper half is the caller's side: it hands over, and waits. All that follows is done in service threads. Who is gone says so by
putting `vanish` into the queue, once or more often and at any time: an admission is taken back, an open run is left as
cancelled. `_ends` is a list of one; whoever pops it leaves the run, and so it is left once.
"""

from __future__ import annotations

import _thread
import os
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from decimal import Decimal
from functools import partial
from typing import TypeAlias

from creditguard.engine.engine import Engine
from creditguard.engine.meter import Findings, Meter
from creditguard.engine.performance import Parts, Performance
from creditguard.engine.service import Call
from creditguard.engine.stopping import Stopping
from creditguard.engine.waiting import NoAnswerError, Ticket
from creditguard.errors import CreditGuardError, LeaseLost, LedgerError, LedgerUnavailable
from creditguard.rules import events
from creditguard.rules.amounts import EXACT, ZERO, to_credits, whole
from creditguard.rules.effects import CutShort, Release, SetLagging
from creditguard.rules.flow import ask, enter, extend, leave
from creditguard.rules.report import Report, make_report, refused
from creditguard.rules.settling import Ending, Exit
from creditguard.rules.values import Admission, Balance, Mark, Outcome, Plan

_LAST_WORD = 2.0
"""Seconds after the deadline in which the flow, told that it is late, decides by its policy."""
_SHORT = 1.0
"""Seconds for which a caller that was interrupted while it leaves waits for its report all the same."""
_MOMENT = 0.01


Put: TypeAlias = Callable[[Call], object]


class Lifecycle:
    """The engine's side of a run."""

    def __init__(self, plan: Plan, parts: Parts, engine: Engine, stopping: Stopping) -> None:
        self.plan: Plan = plan
        self.parts: Parts = parts
        self.engine: Engine = engine
        self.meter: Meter = Meter(plan)
        self.stopping: Stopping = stopping
        self.pending: int | None = None
        self.lease_is_lost: bool = False
        self.admission: Admission = Admission(plan, time.monotonic())
        self.is_admitted: bool = False
        self.entering: Ticket[Admission] = Ticket()
        self.leaving: Ticket[Report] = Ticket()
        self.report: Report | None = None
        self.closed_early: bool = False
        """Closed from outside, while its job may still be running."""
        self.over: bool = False
        """The job has ended; the report may still be on its way."""
        self.backstop: object = None
        """Keeps the weak reference that tells of a caller who vanished."""
        self.grows_elsewhere: bool = False
        """Other processes of the job may extend it, and say so later."""
        self._lowest = plan.budget
        self._growing: set[Ticket[Admission]] = set()
        self._growth = _thread.allocate_lock()
        self._context = copy_context()
        self._performance: Performance[Admission] | Performance[Report] | None = None
        self._gone = False
        self._is_handed_over = False
        self._is_alone = False
        self._ends = [True]

    # The caller's side

    def hand_over(self, put: Put | None = None, *, question: bool = False) -> float:
        """Ask for admission, or the mere `question`; how long to wait for the answer, in seconds. `put` is how a task puts a call
        into the queue. Raises LedgerUnavailable where nothing can be asked."""
        if self.engine.cannot_be_waited_for():
            raise LedgerUnavailable("cannot be asked by a finalizer that runs here")
        try:
            self.engine.start()
        except RuntimeError as error:
            raise LedgerUnavailable(f"cannot be asked: {error}") from None
        self._is_handed_over = True
        (put or self.engine.service.put)(self._ask if question else self._enter)
        return 2 * self.parts.readings.timeout + self.plan.wait

    def late(self) -> float:
        """The time is up: have the flow decide without what hangs; how long to wait for that."""
        self.engine.service.put(self._overdue)
        return _LAST_WORD

    def admitted(self) -> Admission:
        """What was decided, when it was waited for. Raises LedgerUnavailable when there is no word even now."""
        return self.answer(self.entering)

    def answer(self, ticket: Ticket[Admission]) -> Admission:
        """What was answered. Raises what was raised, and LedgerUnavailable when there is no word even now."""
        try:
            return ticket.outcome()
        except NoAnswerError:
            raise LedgerUnavailable("gave no answer", self.parts.leases.ledger.name) from None
        except CutShort:  # by somebody else than the caller, who waits
            raise LedgerUnavailable("is not asked: this process ends", self.parts.leases.ledger.name) from None

    def alone(self, error: LedgerError) -> CreditGuardError | None:
        """Decide where the engine cannot, by policy: the error that refuses the run, or None, and then it goes on unguarded."""
        choice = self.plan.on_unreadable
        self._is_alone = choice != "abort"
        if self._is_handed_over:
            self.engine.service.put(self.vanish)  # what is decided there now comes too late
        self._emit_here(events.ledger_unavailable(self.admission, error, choice, "before"))
        if self._is_alone:
            return None
        self.admission = self.admission._replace(refusal=error)
        self.report = refused(self.admission, time.monotonic())
        return error

    def hand_back(self, outcome: Outcome, put: Put | None = None, *, waits: bool = True) -> float:
        """The job has ended; how long to wait for the report, in seconds: not at all where waiting could not end, or where nobody `waits`."""
        if self.engine.pid != os.getpid():
            return 0.0  # in a forked child that leaves its parent's `with` block: the run is the parent's to close
        if self._is_alone:
            self._leave_alone(outcome)
            return 0.0
        if not self.over:
            self.over = True
            (put or self.engine.service.put)(partial(self._leave, outcome, time.monotonic()))
        plan = self.plan
        at_most = plan.settle + (plan.min_interval if plan.settle_stable else 0.0) + 2 * self.parts.readings.timeout
        if waits and not self.engine.cannot_be_waited_for():
            return at_most
        self.engine.later(at_most, self._overdue)  # nobody else will say that it is late
        return 0.0

    def hurry(self) -> float:
        """The caller was interrupted while it waited for the report: cut it short; how long to wait still."""
        self.engine.service.put(partial(self._leave, "cancelled", time.monotonic(), quickly=True))
        return _SHORT

    def _leave_alone(self, outcome: Outcome) -> None:
        self.over = True
        report = self.report = make_report(self.admission, self._ending(outcome, time.monotonic()), Exit())
        self._emit_here(events.finished(report))
        self.leaving.deliver(report)

    def _emit_here(self, event: events.Event) -> None:
        if self._is_handed_over:  # then there is an emitter, and it may be the sink that hangs
            self._emit(event)
            return
        with suppress(Exception):  # what fails in the host's log set-up is the host's
            self.parts.sink.emit(event)

    # In service threads

    def _ask(self) -> None:
        self._performance = Performance(ask(self.plan), self.parts, self._context, self.entering, lambda _: None)
        self._performance.start()

    def _enter(self) -> None:
        self.engine.runs[self.plan.run_id] = self
        self._performance = Performance(enter(self.plan), self.parts, self._context, self.entering, self._decided)
        if self._gone:  # by now
            self._cut()
        self._performance.start()

    def _decided(self, admission: Admission | None) -> None:
        if admission and admission.ledger_failed and self.plan.ledger_optional and not self.parts.leases.ever_answered:
            self.engine.do_without_default_ledger()
        if admission is None or admission.refusal:
            self.engine.runs.pop(self.plan.run_id, None)
            if admission and not self._is_alone:
                self.admission = admission
                self.report = refused(admission, admission.started)
            return
        if self._is_alone:
            self._give_back()
            return
        self.admission = admission
        self.meter.begin(admission)
        if self.plan.watch:
            self.engine.watch_of(self.parts.readings).add(self)
        self.is_admitted = True
        if self._gone:
            self.vanish()

    def vanish(self, _: object = None) -> None:
        """The caller is gone: take the hold back, or leave the run that was admitted."""
        self._gone = True
        if self.is_admitted:
            self._leave("cancelled", time.monotonic(), quickly=True)
        else:
            self._cut()

    def end_early(self, within: float) -> None:
        """End the run as cancelled, from outside: no waiting for the account to settle, and all of it within so many seconds."""
        self.engine.service.put(partial(self._end_early, within))

    def _end_early(self, within: float) -> None:
        if not self.is_admitted:
            self.vanish()
            return
        self.closed_early = not self.over
        plan = self.admission.plan._replace(settle=0.0, settle_stable=False)
        self.admission = self.admission._replace(plan=plan)
        self.engine.later(within * 0.7, self._cut)
        self._leave("cancelled", time.monotonic())

    def _leave(self, outcome: Outcome, ended: float, *, quickly: bool = False) -> None:
        if quickly:  # nobody waits, and so nobody says that it is late
            self._gone = True
            self.engine.later(2 * self.parts.readings.timeout, self._overdue)
        try:
            self._ends.pop()
        except IndexError:
            if quickly:  # it is being left already
                self._cut()
            return
        if self._is_alone:
            self._give_back()
            return
        self.over = True
        self.stopping.end()
        if self.plan.watch:
            self.engine.watch_of(self.parts.readings).remove(self)
        flow = leave(self.admission, self._ending(outcome, ended), quickly=quickly)
        self._performance = Performance(flow, self.parts, self._context, self.leaving, self._reported)
        if self._gone and not quickly:  # by now
            self._cut()
        self._performance.start()

    def _reported(self, report: Report | None) -> None:
        self.report = report
        self.engine.runs.pop(self.plan.run_id, None)
        if report is None:
            self._give_back()

    def _give_back(self) -> None:
        self.engine.runs.pop(self.plan.run_id, None)
        with suppress(LedgerError):  # then it is tried again
            self.parts.leases.give_back(Release(self.plan.run_id), lambda _, __: None)

    def _ending(self, outcome: Outcome, ended: float) -> Ending:
        meter = self.meter
        return Ending(
            outcome,
            meter.recorded,
            ended,
            self.lease_is_lost,
            self.pending,
            meter.trend,
            meter.overran,
            self.stopping.error is not None,
            self.hold_left,
        )

    def _cut(self) -> None:
        if self._performance:
            self._performance.cut()

    def _overdue(self) -> None:
        if self._performance:
            self._performance.overdue()

    def lease_lost(self, error: LeaseLost) -> None:
        """The hold lapsed."""
        if not self.over:
            self.lease_is_lost = True
            self._emit(events.lease_lost(self.admission, error))

    # While the job runs

    @property
    def interval(self) -> float:
        """Seconds between two readings of the watch."""
        return max(self.plan.watch, self.plan.min_interval, _MOMENT)

    def observe(self, balance: Balance, mark: Mark | None, at: float) -> None:
        """Take in a reading of the watch, with the mark that was taken after it (None: there was none)."""
        if self.over:
            return
        self.act(self.meter.observe(balance.amount, mark, at))
        behind = self.meter.lags() if self.plan.shrink and mark and not mark.lagging else None
        if behind:
            self._emit(events.lagging(self.admission, *behind, lagging=True))
            with suppress(LedgerError):  # the next reading will show it again
                self.parts.leases.ask(SetLagging(self.plan.account, lagging=True), lambda _, __: None)

    def record(self, used: Decimal) -> None:
        """The job says that it used so much: what it is worth an event for, and its hold shrinks. Nothing, once the job has ended."""
        if self.over:
            return
        findings = self.meter.record(used)
        if findings.events:
            self.act(findings)
        if self.plan.shrink:
            self.parts.leases.shrink(self)

    @property
    def hold_left(self) -> Decimal | None:
        """What the run holds: its budget less what it has recorded, where that shrinks it. None where nothing is held."""
        if (
            not self.is_admitted
            or not self.parts.leases.ledger.ttl
            or self.admission.ledger_failed
            or self.lease_is_lost
        ):
            return None
        with self._growth:
            budget, recorded = self.plan.budget, self.meter.recorded
            if not self.plan.shrink or recorded is None:
                return budget
            self._lowest = min(self._lowest, max(EXACT.subtract(budget, max(recorded, ZERO)), ZERO))
            return whole(self._lowest)

    def ask_for_more(self, by: Decimal, put: Put | None = None) -> tuple[Ticket[Admission], float]:
        """Ask for `by` more; the ticket for the answer, and how long to wait for it, in seconds. Raises RuntimeError for a run that
        is not under way, and ConfigurationError where the budget would be beyond the largest amount."""
        if not self.is_admitted or self.over or self.engine.pid != os.getpid():
            raise RuntimeError(
                f"run {self.plan.run_id} of {self.plan.job!r} is not under way: there is nothing to extend"
            )
        to_credits(EXACT.add(self.plan.budget, by), "extend(): the budget with it")
        if self.engine.cannot_be_waited_for():
            raise LedgerUnavailable("cannot be asked by a finalizer that runs here")
        ticket: Ticket[Admission] = Ticket()
        unspent = max(EXACT.subtract(self.plan.budget, self.meter.recorded or ZERO), ZERO)
        flow = extend(self.admission, by, unspent)
        extended = partial(self._extended, ticket, by)
        performance = Performance(flow, self.parts, self._context, ticket, extended)
        (put or self.engine.service.put)(partial(self._extend, ticket, performance))
        self.engine.later(2 * self.parts.readings.timeout, performance.overdue)
        return ticket, 2 * self.parts.readings.timeout + _LAST_WORD

    def adopt(self, run_id: str) -> None:
        """Speak for a run that another process was admitted with."""
        self.plan = self.plan._replace(run_id=run_id)
        self.admission = self.admission._replace(plan=self.plan)
        self.engine.start()
        self.is_admitted = True

    @property
    def is_growing(self) -> bool:
        """Whether the ledger may have let the hold grow by what `hold_left` does not count yet."""
        return bool(self._growing)

    def _extend(self, ticket: Ticket[Admission], performance: Performance[Admission]) -> None:
        self._growing.add(ticket)
        performance.start()

    def _extended(self, ticket: Ticket[Admission], by: Decimal, admission: Admission | None) -> None:
        if admission:
            self._grow(by)
        self._growing.discard(ticket)
        if self.plan.shrink or not admission:  # what was put off; or a ledger that granted it too late
            self.parts.leases.shrink(self)

    def extended_elsewhere(self, by: Decimal) -> None:
        """The run's hold has grown already: another process of the job has asked for it."""
        self._grow(by)
        if self.plan.shrink:
            self.parts.leases.shrink(self)

    def _grow(self, by: Decimal) -> None:
        with self._growth:
            plan = self.admission.plan
            plan = plan._replace(budget=whole(EXACT.add(plan.budget, by)))
            self._lowest = EXACT.add(self._lowest, by)
            self.admission = self.admission._replace(plan=plan)
            self.plan = self.meter.plan = plan

    def act(self, findings: Findings) -> None:
        """Log what was found, and stop the job if it is to be stopped."""
        if self.over:
            return
        for event in findings.events:
            self._emit(event)
        if findings.stop:
            self.stopping.stop(findings.stop)

    def _emit(self, event: events.Event) -> None:
        self.engine.emitter.emit(self._context, self.parts.sink, event)
