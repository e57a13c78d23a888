"""The rules: who may start, what a run has consumed, and how sure that is. Pure arithmetic over values; nothing is read here.

Admission. headroom = balance − held by others − keep; a job is short when headroom < budget. "Held by others" counts every
hold that was live when the ledger was marked, *before* the balance was asked for, and every one taken since. A run that has
spent and released in between is still counted: whether the balance shows its spending or not, nobody can tell. A live hold
may have been spent in part already, and then both the balance and the hold count that part: headroom errs on the low side.

Consumption. before − after is what the *account* lost. It is what the run consumed only if no other guarded run was on the
account meanwhile; else, or when the ledger cannot tell, it is an upper bound. A balance that rose says nothing about
consumption: it is never clamped to 0. If readings during the run saw it rise, then what fell between the rises was debited
at least, by whomever; refunds are not taken off that.

What this rests on, and no reading can show: that nobody spends from the account outside of creditguard (what the job records
itself tells, as drift), and that no top-up or reset hides between two readings, having been spent again before the second.
A refund that hides so does no harm: the difference is then net of it.

Settled. A balance may lag: the figures are final only when it holds all debits and refunds of the run. Time shows that (the
caller names a time, or two readings in a row agree), or the job's own word. Neither counts while tasks are open, by the
job's own word; nor does a balance that has not moved at all show anything about a job that was to spend. A balance that
lags replays the run: two readings may agree because the job paused. So a pause at the end must outlast every pause that was
seen during the run. A refund that comes later than all this is not foreseen: only the job knows of it (`run.pending`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from creditguard.course import Course
from creditguard.errors import BudgetExceeded
from creditguard.models import (
    EXACT,
    ZERO,
    Admission,
    Balance,
    Basis,
    Mark,
    Outcome,
    Plan,
    Report,
    SpentBasis,
    from_micro,
    to_micro,
    whole,
)


class Verdict(NamedTuple):
    """What the pre-flight arithmetic says. `shortfall` is 0 when the budget fits."""

    headroom: Decimal
    shortfall: Decimal

    @property
    def short(self) -> bool:
        return self.shortfall > 0


def spendable(plan: Plan, balance: Balance) -> int:
    """The balance less what must be kept, in micro-credits, rounded down: what a ledger may promise to runs."""
    return to_micro(balance.amount, up=False) - to_micro(plan.keep, up=True)


def decide(plan: Plan, balance: Balance, held_by_others: int) -> Verdict:
    """Compare the budget with the headroom, on the ledger's grain: `held_by_others` is in micro-credits."""
    headroom = from_micro(spendable(plan, balance) - held_by_others)
    return Verdict(headroom, max(whole(EXACT.subtract(plan.budget, headroom)), ZERO))


def overlapping(before: Mark | None, after: Mark | None) -> int | None:
    """How many other runs were live at some time between two marks of the same account, the run itself not counted.

    Those that were live at the first mark, and those that started since, less the run itself.
    """
    if before is None or after is None:
        return None
    return max((before.started - before.ended) + (after.started - before.started) - 1, 0)


class Usage(NamedTuple):
    """What a run consumed, as far as its balances, its own record and the ledger tell."""

    delta: Decimal | None
    consumed: Decimal | None
    drift: Decimal | None
    basis: Basis
    over_budget: bool | None
    at_least: Decimal | None = None


def usage(
    budget: Decimal,
    before: Decimal | None,
    after: Decimal | None,
    recorded: Decimal | None,
    overlaps: int | None,
    *,
    fallen: Decimal = ZERO,
    rose: bool = False,
) -> Usage:
    """Work out consumption and its basis. `over_budget` is None when the figures cannot tell.

    `fallen` and `rose` are what the readings in between saw: the falls added up, and whether there was a rise.
    """
    delta = None if before is None or after is None else whole(EXACT.subtract(before, after))
    if recorded is not None:
        drift = None if delta is None else whole(EXACT.subtract(delta, recorded))
        return Usage(delta, recorded, drift, "recorded", recorded > budget)
    if delta is None or delta < 0 or rose:
        at_least = whole(fallen) if fallen and overlaps == 0 else None
        return Usage(delta, None, None, "unknown", None, at_least)
    if overlaps != 0:
        # Others ran too, or the ledger cannot tell. An upper bound within the budget proves that the run was; one beyond it proves nothing.
        return Usage(delta, delta, None, "shared_account_delta", False if delta <= budget else None)
    return Usage(delta, delta, None, "account_delta", delta > budget)


def drift_tolerance(plan: Plan, recorded: Decimal) -> Decimal:
    """How far delta and record may part: what the caller said, else a credit or 1 % of what was recorded."""
    if plan.drift_tolerance is not None:
        return plan.drift_tolerance
    return max(Decimal(1), EXACT.multiply(recorded.copy_abs(), Decimal("0.01")))


def drifted(plan: Plan, report: Report) -> bool:
    """Whether delta and record part by more than the tolerance although no other guarded run was on the account.

    An account that has lost less than was recorded is as a rule only behind, as long as it has not settled.
    """
    if report.drift is None or report.credits_recorded is None or report.overlapping_runs != 0:
        return False
    if report.drift < 0 and not report.settled:
        return False
    return report.drift.copy_abs() > drift_tolerance(plan, report.credits_recorded)


# The watch


class Spending(NamedTuple):
    """What a run has spent by now, and how sure that is."""

    spent: Decimal | None
    basis: SpentBasis

    @property
    def sure(self) -> bool:
        """Whether at least that much was spent by this run and no other guarded one."""
        return self.basis in {"recorded", "account_delta", "at_least"}


def spending(before: Decimal | None, recorded: Decimal | None, course: Course | None, overlaps: int | None) -> Spending:
    """What the run has spent by the latest reading. After a rise the fall since the start is a lower bound: a top-up hides
    spending, and a refund is rightly taken off."""
    if recorded is not None:
        return Spending(recorded, "recorded")
    if before is None or course is None:
        return Spending(None, "unknown")
    delta = whole(EXACT.subtract(before, course.last))
    if overlaps != 0:
        return Spending(None, "unknown") if course.rose else Spending(delta, "shared_account_delta")
    return Spending(max(delta, ZERO), "at_least") if course.rose else Spending(delta, "account_delta")


class Alarms(NamedTuple):
    """What is to be said about a run, or has been said: each thing once."""

    thresholds: tuple[Decimal, ...] = ()
    over_bound: bool = False
    """An upper bound is over the budget."""
    over_budget: bool = False
    """The run itself is."""
    low: bool = False
    """Less is left on the account than must be."""

    def without(self, said: Alarms) -> Alarms:
        """What has not been said. A bound is not worth a word any more once the thing itself was said."""
        return Alarms(
            tuple(each for each in self.thresholds if each not in said.thresholds),
            self.over_bound and not (said.over_bound or said.over_budget),
            self.over_budget and not said.over_budget,
            self.low and not said.low,
        )

    def together(self, other: Alarms) -> Alarms:
        """Both."""
        return Alarms(
            (*self.thresholds, *other.thresholds),
            self.over_bound or other.over_bound,
            self.over_budget or other.over_budget,
            self.low or other.low,
        )


def alarms(plan: Plan, now: Spending, balance_now: Decimal | None) -> Alarms:
    """All that there is to say by now."""
    over = now.spent is not None and now.spent > plan.budget
    thresholds: tuple[Decimal, ...] = ()
    if plan.watch and now.spent:
        thresholds = tuple(share for share in plan.thresholds if now.spent >= EXACT.multiply(share, plan.budget))
    return Alarms(
        thresholds,
        over_bound=over and not now.sure,
        over_budget=over and now.sure,
        low=plan.stop_below is not None and balance_now is not None and balance_now < plan.stop_below,
    )


def stop(plan: Plan, said: Alarms, now: Spending, balance_now: Decimal | None) -> BudgetExceeded | None:
    """Why the run is to be stopped, if it is: only for what is sure. An upper bound stops nothing."""
    if said.over_budget and plan.on_overrun == "stop":
        return BudgetExceeded(now.spent, plan.budget, plan.unit, plan.job, plan.run_id)
    if said.low:
        return BudgetExceeded(now.spent, plan.budget, plan.unit, plan.job, plan.run_id, balance_now, plan.stop_below)
    return None


# The end


def outcome_of(error: BaseException | None) -> Outcome:
    """How the job ended, by the exception that came out of it.

    `sys.exit(0)` is success. Cancelled are an interrupt, a cancelled task (asyncio's, trio's and Prefect's exceptions are told by name,
    so that none of them is imported), a generator that was closed before its end, and a job that was stopped for what it
    spent.
    """
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "succeeded"
    if isinstance(error, (KeyboardInterrupt, GeneratorExit, BudgetExceeded)):
        return "cancelled"
    if not isinstance(error, Exception) and type(error).__name__ in {
        "CancelledError",
        "Cancelled",
        "TerminationSignal",
    }:
        return "cancelled"
    return "failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, and what was known of it by then."""

    outcome: Outcome
    recorded: Decimal | None
    ended: float
    """Monotonic seconds."""
    lease_lost: bool = False
    pending: int | None = None
    """How many of its tasks are open, by the job's own word; 0: it said that all are done."""
    course: Course | None = None
    """What the readings during the run said, the one at admission included."""
    overran: bool = False
    """The watch saw it over its budget, for sure."""
    stopped: bool = False


@dataclass(slots=True)
class Exit:
    """What the exit readings say. Filled in as they come, so that an interrupt in the middle loses nothing."""

    course: Course | None = None
    after: Balance | None = None
    mark: Mark | None = None
    settled: bool = False
    rose: bool = False
    """A reading was above the one before it, up to the first of the exit readings."""
    rose_after: bool = False
    """The same, from then on."""
    since: float = 0.0
    """Since when, in monotonic seconds, the exit readings agree."""
    agree: int = 0
    """How many of them do."""

    def saw(self, balance: Balance, at: float) -> None:
        """Take in one more exit reading."""
        amount, first = balance.amount, self.after is None
        if self.after is None or self.after.amount != amount:
            self.since, self.agree = at, 0
        self.agree += 1
        self.after = balance
        before, self.course = self.course, (self.course.seen(amount, at) if self.course else Course.begin(amount, at))
        if before and amount > before.last:
            self.rose_after = self.rose_after or not first
        if first:
            self.rose = self.course.rose


def course_until_exit(admission: Admission, ending: Ending) -> Course | None:
    """The course that the exit readings go on from."""
    if ending.course or admission.balance is None:
        return ending.course
    return Course.begin(admission.balance.amount, admission.started)


def _lost(admission: Admission, found: Exit) -> Decimal | None:
    if admission.balance is None or found.after is None:
        return None
    return EXACT.subtract(admission.balance.amount, found.after.amount)


def _shows_nothing(admission: Admission, ending: Ending, found: Exit) -> bool:
    """A balance that has not moved may lag, unless the job was to spend nothing, or says that it did not."""
    return _lost(admission, found) == 0 and admission.plan.budget > 0 and ending.recorded != 0


def settled_by_time(admission: Admission, ending: Ending, found: Exit) -> bool:
    """Whether one reading is final: the caller's wait is over, or the job said that all its tasks are done."""
    if found.after is None or ending.pending:
        return False
    waited = admission.plan.settle > 0 or ending.pending == 0
    return waited and not _shows_nothing(admission, ending, found)


def settled_by_readings(admission: Admission, ending: Ending, found: Exit) -> bool:
    """Whether the readings have come to rest: two agree, for longer than the run itself ever paused."""
    plan = admission.plan
    if ending.pending or found.agree < 2 or found.course is None or _shows_nothing(admission, ending, found):
        return False
    pause = ending.course.longest_pause if ending.course else 0.0
    return found.course.at - found.since >= min(pause, plan.settle)


def agrees_with_record(admission: Admission, ending: Ending, found: Exit) -> bool:
    """Whether the account has lost exactly what the job recorded, and the job said that nothing is open: if nobody else was
    on the account there is nothing to wait for."""
    return ending.pending == 0 and ending.recorded is not None and _lost(admission, found) == ending.recorded


def report(admission: Admission, ending: Ending, found: Exit) -> Report:
    """Put together all that is known of a run."""
    plan, before, after = admission.plan, admission.balance, found.after
    overlaps = overlapping(admission.mark, found.mark)
    used = usage(
        plan.budget,
        before.amount if before else None,
        after.amount if after else None,
        ending.recorded,
        overlaps,
        fallen=found.course.fallen if found.course else ZERO,
        rose=found.rose or (found.course is not None and found.course.rose and after is None),
    )
    over_budget = used.over_budget
    if used.basis == "account_delta" and found.rose_after and not over_budget:
        over_budget = None
    if over_budget is None and ending.overran:
        over_budget = True
    return Report(
        run_id=plan.run_id,
        job=plan.job,
        account=plan.account,
        source=plan.source,
        unit=plan.unit,
        budget=plan.budget,
        keep=plan.keep,
        balance_before=before.amount if before else None,
        held_by_others=admission.held_by_others,
        headroom=admission.headroom,
        shortfall=admission.shortfall,
        request_id_before=before.request_id if before else None,
        labels=plan.labels,
        balance_after=after.amount if after else None,
        balance_delta=used.delta,
        credits_consumed=used.consumed,
        credits_recorded=ending.recorded,
        drift=used.drift,
        basis=used.basis,
        over_budget=over_budget,
        # A rise after the end is a refund, most likely, and then the figure is right. But a top-up looks the same.
        settled=found.settled and not (found.rose_after and used.basis != "recorded"),
        overlapping_runs=overlaps,
        outcome=ending.outcome,
        duration_s=round(max(ending.ended - admission.started, 0.0), 6),
        request_id_after=after.request_id if after else None,
        lease_lost=ending.lease_lost,
        pending=ending.pending,
        consumed_at_least=used.at_least,
        stopped=ending.stopped,
    )
