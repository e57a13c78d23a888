"""Who may start: the budget against what is free. Pure arithmetic over values; nothing is read here.

headroom = balance − held by others − keep; a job is short when headroom < budget. "Held by others" counts every
hold that was live when the ledger was marked, *before* the balance was asked for, and every one taken since. A run that has
spent and released in between is still counted: whether the balance shows its spending or not, nobody can tell. A live hold
may have been spent in part already, and then both the balance and the hold count that part: headroom errs on the low side.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from creditguard.rules.amounts import EXACT, ZERO, from_micro, to_micro, whole
from creditguard.rules.values import Balance, Plan


class Verdict(NamedTuple):
    """What the pre-flight arithmetic says. `shortfall` is 0 when the budget fits."""

    headroom: Decimal
    shortfall: Decimal


def spendable(plan: Plan, balance: Balance) -> int:
    """The balance less what must be kept, in micro-credits, rounded down: what a ledger may promise to runs."""
    return to_micro(balance.amount, up=False) - to_micro(plan.keep, up=True)


def decide(plan: Plan, balance: Balance, held_by_others: int) -> Verdict:
    """Compare the budget with the headroom, on the ledger's grain: `held_by_others` is in micro-credits."""
    headroom = from_micro(spendable(plan, balance) - held_by_others)
    return Verdict(headroom, max(whole(EXACT.subtract(plan.budget, headroom)), ZERO))
