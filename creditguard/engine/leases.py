"""A ledger as the runs of this process use it: their holds are kept alive, and what is owed to it is given.

A lease belongs to the process, not to the hold: however many runs there are, one lease is renewed, at a third of its length,
from the first hold until the last.

What is owed is the release of a hold, with or without a report. It is remembered before the ledger is asked, and forgotten only
when the ledger has taken it. Until then it is tried again, first of all at each renewal: a ledger that does not take it back is
not told that the process lives either, for as long as the living can wait. The job waits for none of this.

What stands here is changed at the ledger's desk, by one service thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from creditguard.engine.desk import PARKED, Desk, Resume
from creditguard.errors import LeaseLost, LedgerError
from creditguard.process.background import seconds
from creditguard.process.identity import this_process
from creditguard.rules.amounts import to_micro
from creditguard.rules.effects import (
    Extend,
    LedgerEffect,
    Publish,
    Recent,
    Release,
    Reserve,
    SetLagging,
    Settle,
    Sweep,
    TakeMark,
    Usual,
)
from creditguard.rules.ports import Ledger
from creditguard.rules.report import Report
from creditguard.rules.values import Grant, Hold, Mark

if TYPE_CHECKING:
    from creditguard.engine.engine import Engine
    from creditguard.engine.lifecycle import Lifecycle

T = TypeVar("T")

_RETRY = 1.0
"""Seconds until what failed is tried again; twice as long each time, up to a renewal's interval."""
_BATCH = 0.9
"""Seconds for which recorded credits are gathered before holds shrink by them."""
_NEVER = float("inf")
_PAST_RUNS = 100
"""How many of a job's latest reports say what it usually takes."""
_GOOD_FOR = 30.0
"""Seconds for which that is not asked again: a crowd of one job may be refused at once."""


class Leases:
    """One ledger. `patience`: seconds after which a verb is taken to hang."""

    def __init__(self, ledger: Ledger, engine: Engine, patience: float) -> None:
        self.ledger: Ledger = ledger
        self.engine: Engine = engine
        self.desk: Desk = Desk(engine.service, ledger.name, patience)
        self.ever_answered: bool = False
        self.opened: bool = False
        """Something was asked, so there may be a connection, now or in an instant: it stays so when it was closed for a fork, for
        another thread may be forking, too."""
        self._interval = ledger.ttl / 3 if ledger.ttl else _RETRY
        self._held: set[str] = set()
        self._owed: dict[str, Report | None] = {}
        self._shrinking: dict[str, Lifecycle] = {}
        self._renewed = 0.0
        self._retry = min(_RETRY, self._interval)
        self._pause = self._retry
        self._due = _NEVER
        self._usual: tuple[Usual, float, str | None] | None = None

    @property
    def owes(self) -> bool:
        """Whether something is still to be given back."""
        return bool(self._owed)

    def ask(self, effect: LedgerEffect, resume: Resume) -> Any:
        """Perform an effect on the ledger; PARKED if the outcome comes by `resume`."""
        return self.desk.ask(partial(self._answered, partial(self._perform, effect)), resume)

    def mark(self, account: str, resume: Resume) -> Any:
        """The account's totals now; PARKED if they come by `resume`."""
        return self.desk.ask(partial(self._answered, partial(self._mark, account)), resume)

    def give_back(self, effect: Release | Settle, resume: Resume) -> Any:
        """Have the ledger take back a hold: now if it can, in any case at last. PARKED, or None once it was tried.

        Raises LedgerUnavailable if it has to be tried again: for an event, there is nothing left to do.
        """
        run_id, report = (effect.run_id, None) if isinstance(effect, Release) else (effect.report.run_id, effect.report)
        self._owed[run_id] = report
        try:
            return self.desk.ask(partial(self._give, run_id), resume)
        except LedgerError:
            self._attend(self._retry)
            raise

    def _answered(self, verb: Callable[[], T]) -> T:
        """Ask; and after a while without answers, give soon what is owed: it need not wait for as long as the last pause."""
        answer = verb()
        if self._owed and self._pause > self._retry:
            self._attend(self._retry)
        return answer

    def _perform(self, effect: LedgerEffect) -> object:
        self.opened = True
        match effect:
            case Reserve(hold, available, mark):
                return self._reserve(hold, available, mark)
            case TakeMark(account):
                return self._mark(account)
            case Recent(account, max_age, claim):
                return self.ledger.recent(account, max_age=max_age, claim=claim)
            case Extend(run_id, by, available, mark):
                return self.ledger.extend(run_id, by, available=available, mark=mark)
            case Usual():
                return self._usually(effect)
            case Sweep(account):
                return self.ledger.sweep(account)
            case SetLagging(account, lagging):
                self.ledger.set_lagging(account, lagging)
            case Publish(account, reading):
                self.ledger.publish(account, reading)
        return None

    def _mark(self, account: str) -> Mark:
        self.opened = True
        self._shrink_holds()  # before an admission is decided, what has been recorded is held no more
        mark = self.ledger.mark(account)
        self.ever_answered = True
        return mark

    def _reserve(self, hold: Hold, available: int | None, mark: Mark | None) -> Grant:
        grant = self.ledger.reserve(hold, this_process(), available=available, mark=mark)
        if grant.admitted and self.ledger.ttl:
            if not self._held:
                self._renewed = seconds()
            self._held.add(hold.id)
            self._attend(self._interval)
        return grant

    def _usually(self, asked: Usual) -> str | None:
        from creditguard.rules.history import past, usually  # which an admitted run has no use for

        now = seconds()
        if self._usual is None or self._usual[0] != asked or self._usual[1] < now:
            reports = self.ledger.history(account=asked.account, job=asked.job, limit=_PAST_RUNS)
            self._usual = asked, now + _GOOD_FOR, usually(map(past, reports))
        return self._usual[2]

    def _give(self, run_id: str) -> None:
        self._held.discard(run_id)
        if run_id not in self._owed:
            return
        self.opened = True
        report = self._owed[run_id]
        try:
            if report is None:
                self.ledger.release(run_id)
            else:
                self.ledger.settle(run_id, report.account, report.to_dict())
        except Exception:
            self._attend(self._retry)
            raise
        del self._owed[run_id]

    # Renewing. What is due is looked after once, by whoever came for the time that still stands.

    def _attend(self, delay: float) -> None:
        due = seconds() + delay
        if due < self._due:
            self._due = due
            self.engine.later(delay, partial(self._look_after, due))

    def _look_after(self, due: float) -> None:
        if due != self._due:
            return
        self._due = _NEVER
        if self._owed or self._held or self._shrinking:
            try:
                delay = self.desk.ask(self._renew, self._looked_after)
            except LedgerError as error:
                self._looked_after(None, error)
            else:
                if delay is not PARKED:
                    self._looked_after(delay, None)

    def _looked_after(self, delay: float | None, failure: Exception | None) -> None:
        if delay is None or failure:
            # Perhaps a restart. Whether the lease outlived it, the ledger will say when it answers again.
            delay = self._pause
            self._pause = min(self._pause * 2, self._interval)
        else:
            self._pause = self._retry
        self._attend(delay)

    # Shrinking

    def shrink(self, run: Lifecycle) -> None:
        """Have the run's hold shrink to what it has not recorded yet, within a second. From any thread, a job's own included: what
        it has recorded by then is looked up at the desk."""
        is_first = not self._shrinking
        self._shrinking[run.plan.run_id] = run
        if is_first:
            self.engine.service.put(partial(self._attend, _BATCH))

    def _shrink_holds(self) -> None:
        while self._shrinking:
            try:
                run_id, run = self._shrinking.popitem()
            except KeyError:
                return
            if run_id not in self._held or run.is_growing:
                continue
            known = {"budget": to_micro(run.plan.budget, up=True)} if run.grows_elsewhere else {}
            left = run.hold_left
            if left is not None:
                try:
                    self.ledger.shrink(run_id, to_micro(left, up=True), **known)
                except LedgerError:
                    self._shrinking[run_id] = run
                    raise

    def _renew(self) -> float:
        self.opened = True
        failure = self._give_what_is_owed()
        try:
            self._shrink_holds()
        except Exception as error:
            failure = failure or error
        if failure and seconds() - self._renewed < self._interval * 1.5:
            raise failure
        if self._held:
            lost = self.ledger.renew(this_process(), list(self._held))
            self._renewed = seconds()
            for run_id in lost:
                self._tell(run_id)
        if failure:
            raise failure
        return self._interval

    def _give_what_is_owed(self) -> Exception | None:
        failure, started = None, seconds()
        for run_id in list(self._owed):
            try:
                self._give(run_id)
            except Exception as error:
                failure = error
                # The others first next time, for it may be this one's fault.
                self._owed[run_id] = self._owed.pop(run_id)
                if seconds() - started > self._retry:
                    break  # the desk is not for us alone
        return failure

    def hurry(self) -> None:
        """Give what is owed now, and not only when it is due."""
        if self._owed:
            self._attend(0.0)

    def _tell(self, run_id: str) -> None:
        self._held.discard(run_id)
        run = self.engine.runs.get(run_id)
        if run:
            message = "the hold lapsed while the job ran: other runs may have been admitted against the same credits"
            run.lease_lost(LeaseLost(message, self.ledger.name, run_id))
