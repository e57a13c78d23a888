"""The rules: who may start, what a run has consumed, and how sure that is. Pure arithmetic over values; nothing is read here.

Admission. headroom = balance − held by others − keep; a job is short when headroom < budget. "Held by others" counts every
hold that was live when the ledger was marked, *before* the balance was asked for, and every one taken since. A run that has
spent and released in between is still counted: whether the balance shows its spending or not, nobody can tell. A live hold
may have been spent in part already, and then both the balance and the hold count that part: headroom errs on the low side.

Consumption. before − after is what the *account* lost. It is what the run consumed only if no other guarded run was on the
account meanwhile; else, or when the ledger cannot tell, it is an upper bound. A balance that rose says nothing about
consumption: it is never clamped to 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

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
    from_micro,
    to_micro,
    whole,
)


@dataclass(frozen=True, slots=True)
class Verdict:
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


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run consumed, as far as two balances, its own record and the ledger tell."""

    delta: Decimal | None
    consumed: Decimal | None
    drift: Decimal | None
    basis: Basis
    over_budget: bool | None


def usage(
    budget: Decimal, before: Decimal | None, after: Decimal | None, recorded: Decimal | None, overlaps: int | None
) -> Usage:
    """Work out consumption and its basis. `over_budget` is None when the figures cannot tell."""
    delta = None if before is None or after is None else whole(EXACT.subtract(before, after))
    if recorded is not None:
        drift = None if delta is None else whole(EXACT.subtract(delta, recorded))
        return Usage(delta, recorded, drift, "recorded", recorded > budget)
    if delta is None or delta < 0:
        return Usage(delta, None, None, "unknown", None)
    if overlaps != 0:
        # Others ran too, or the ledger cannot tell. An upper bound within the budget proves that the run was; one beyond it proves nothing.
        return Usage(delta, delta, None, "shared_account_delta", False if delta <= budget else None)
    return Usage(delta, delta, None, "account_delta", delta > budget)


def outcome_of(error: BaseException | None) -> Outcome:
    """How the job ended, by the exception that came out of it.

    `sys.exit(0)` is success. Cancelled are an interrupt, a cancelled task (asyncio's and trio's exceptions are told by name,
    so that neither library is imported) and a generator that was closed before its end.
    """
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "succeeded"
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        return "cancelled"
    if not isinstance(error, Exception) and type(error).__name__ in {"CancelledError", "Cancelled"}:
        return "cancelled"
    return "failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: what it recorded itself, its outcome, how long the job took, and whether its hold had lapsed."""

    outcome: Outcome
    recorded: Decimal | None
    ended: float
    """Monotonic seconds."""
    lease_lost: bool = False


def report(
    admission: Admission, ending: Ending, after: Balance | None, mark_after: Mark | None, *, settled: bool = False
) -> Report:
    """Put together all that is known of a run."""
    plan, before = admission.plan, admission.balance
    overlaps = overlapping(admission.mark, mark_after)
    used = usage(
        plan.budget, before.amount if before else None, after.amount if after else None, ending.recorded, overlaps
    )
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
        over_budget=used.over_budget,
        settled=settled,
        overlapping_runs=overlaps,
        outcome=ending.outcome,
        duration_s=round(max(ending.ended - admission.started, 0.0), 6),
        request_id_after=after.request_id if after else None,
        lease_lost=ending.lease_lost,
    )
