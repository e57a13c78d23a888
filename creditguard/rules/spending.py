"""What a run has spent by now, as the watch sees it: the trend of the balance, and what is worth an event.

A balance that falls is spending, the run's own or other people's. One that rises is a refund, a top-up or a reset, and nothing
tells which. So falls are added up by themselves, and a rise is remembered.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from creditguard.errors import BudgetExceeded
from creditguard.rules.amounts import EXACT, ZERO, whole
from creditguard.rules.values import Plan, SpentBasis

_RECENT = 6
"""Readings that the burn rate rests on: enough to smooth a bursty job, few enough to follow one that has changed its pace."""


class Trend(NamedTuple):
    """The readings so far. Times are monotonic seconds."""

    last: Decimal
    at: float
    fallen: Decimal = ZERO
    """The falling stretches, added up."""
    rose: bool = False
    moved: float | None = None
    """When a reading last differed from the one before it."""
    longest_pause: float = 0.0
    """The longest time between two such moves."""
    recent: tuple[tuple[float, Decimal], ...] = ()
    """When the latest readings were taken, and what had fallen by then."""

    @classmethod
    def begin(cls, amount: Decimal, at: float) -> Trend:
        """The trend that starts with this reading."""
        return cls(amount, at, recent=((at, ZERO),))

    def seen(self, amount: Decimal, at: float) -> Trend:
        """The trend with one more reading."""
        fallen = EXACT.add(self.fallen, max(EXACT.subtract(self.last, amount), ZERO))
        recent = (*self.recent[1 - _RECENT :], (at, fallen))
        if amount == self.last:
            return self._replace(at=at, recent=recent)
        pause = 0.0 if self.moved is None else at - self.moved
        return Trend(
            amount,
            at,
            fallen,
            rose=self.rose or amount > self.last,
            moved=at,
            longest_pause=max(self.longest_pause, pause),
            recent=recent,
        )

    @property
    def burn_rate(self) -> float | None:
        """Credits that the account loses per minute, over the latest readings; None until there are two."""
        first, fallen = self.recent[0]
        if self.at <= first:
            return None
        return round(float(EXACT.subtract(self.fallen, fallen)) * 60 / (self.at - first), 3)

    @property
    def time_to_empty(self) -> float | None:
        """Seconds until nothing is left at this rate; None when nothing is being spent."""
        rate = self.burn_rate
        return round(max(float(self.last), 0.0) * 60 / rate, 1) if rate else None


class Spending(NamedTuple):
    """What a run has spent by now, and how sure that is."""

    spent: Decimal | None
    basis: SpentBasis

    @property
    def sure(self) -> bool:
        """Whether at least that much was spent by this run and no other guarded one."""
        return self.basis in {"recorded", "account_delta", "at_least"}


def spent_so_far(
    before: Decimal | None, recorded: Decimal | None, trend: Trend | None, overlaps: int | None
) -> Spending:
    """What the run has spent by the latest reading. After a rise the fall since the start is a lower bound: a top-up hides
    spending, and a refund is rightly taken off."""
    if recorded is not None:
        return Spending(recorded, "recorded")
    if before is None or trend is None:
        return Spending(None, "unknown")
    delta = whole(EXACT.subtract(before, trend.last))
    if overlaps != 0:
        return Spending(None, "unknown") if trend.rose else Spending(delta, "shared_account_delta")
    return Spending(max(delta, ZERO), "at_least") if trend.rose else Spending(delta, "account_delta")


class Alarms(NamedTuple):
    """What is to be said about a run, or has been said: each thing once."""

    thresholds: tuple[Decimal, ...] = ()
    over_bound: bool = False
    """An upper bound is over the budget."""
    over_budget: bool = False
    """The run itself is."""
    low: bool = False
    """Less is left on the account than must be."""


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


def reason_to_stop(plan: Plan, said: Alarms, now: Spending, balance_now: Decimal | None) -> BudgetExceeded | None:
    """Why the run is to be stopped, if it is: only for what is sure. An upper bound stops nothing."""
    if said.over_budget and plan.on_overrun == "stop":
        return BudgetExceeded(now.spent, plan.budget, plan.unit, plan.job, plan.run_id)
    if said.low:
        return BudgetExceeded(now.spent, plan.budget, plan.unit, plan.job, plan.run_id, balance_now, plan.stop_below)
    return None
