"""What a run has spent so far: fed with what the job records and with balance readings, says what is worth saying.

The rules are in `rules.spending`; here is the state that they are applied to. Jobs record in threads of their own, and a signal
handler may record in the middle of that: so there is no lock. What was recorded is a list that only grows, and its sum up to some
length is one value, which anybody may work out again and put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from creditguard.errors import BudgetExceeded
from creditguard.rules import events
from creditguard.rules.amounts import EXACT, ZERO, whole
from creditguard.rules.consumption import overlapping
from creditguard.rules.events import Event
from creditguard.rules.spending import Alarms, Spending, Trend, alarms, reason_to_stop, spent_so_far
from creditguard.rules.values import Admission, Mark, Plan


class Findings(NamedTuple):
    """Events to log, and why the run is to stop, if it is."""

    events: Sequence[Event] = ()
    stop: BudgetExceeded | None = None


_NOTHING = Findings()
_SILENCE = Alarms()


class Meter:
    """The meter of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan: Plan = plan
        self._amounts: list[Decimal] = []
        self._sum: tuple[int, Decimal] = 0, ZERO
        self._said: dict[object, object] = {}
        self._overlaps: int | None = None
        self._admission: Admission | None = None
        self._recorded_before = ZERO
        self.trend: Trend | None = None

    @property
    def recorded(self) -> Decimal | None:
        """The credits that were recorded; None before the first."""
        amounts = self._amounts
        length, total = self._sum
        if not amounts:
            return None
        for amount in amounts[length:]:
            length, total = length + 1, EXACT.add(total, amount)
        self._sum = length, total
        return total

    @property
    def overran(self) -> bool:
        """Whether the run was seen over its budget, for sure."""
        return "over_budget" in self._said

    @property
    def spending(self) -> Spending:
        """What the run has spent, and how sure that is."""
        balance = self._admission.balance if self._admission else None
        return spent_so_far(balance.amount if balance else None, self.recorded, self.trend, self._overlaps)

    def begin(self, admission: Admission) -> None:
        """The run is admitted."""
        self._admission = admission
        if self.plan.watch and admission.balance:
            self.trend = Trend.begin(admission.balance.amount, admission.started)

    def record(self, used: Decimal) -> Findings:
        """The job says that it used so much."""
        self._amounts.append(used)
        if not self.plan.watch and (self.recorded or ZERO) <= self.plan.budget:
            return _NOTHING
        return self._findings()

    def about_to_look(self) -> None:
        """A balance is about to be read: what has been recorded by now should be in it."""
        self._recorded_before = self.recorded or ZERO

    def lags(self) -> tuple[Decimal, Decimal] | None:
        """What the account has lost by the latest reading, and what had been recorded before that, if this is more and nobody else was
        on the account to explain it, nor a rise."""
        before, trend = self._admission and self._admission.balance, self.trend
        if not before or trend is None or trend.rose or self._overlaps != 0:
            return None
        lost = whole(EXACT.subtract(before.amount, trend.last))
        return (lost, self._recorded_before) if lost < self._recorded_before else None

    def observe(self, amount: Decimal, mark: Mark | None, at: float) -> Findings:
        """A balance was read, and then the ledger marked, at `at` (monotonic seconds)."""
        self.trend = self.trend.seen(amount, at) if self.trend else Trend.begin(amount, at)
        if self._admission:
            self._overlaps = overlapping(self._admission.mark, mark)
        return self._findings()

    def _findings(self) -> Findings:
        if self._admission is None:
            return _NOTHING
        plan, spending = self.plan, self.spending
        balance_now = self.trend.last if self.trend else None
        new = self._news(alarms(plan, spending, balance_now))
        if new == _SILENCE:
            return _NOTHING
        stop = reason_to_stop(plan, new, spending, balance_now)
        return Findings(self._events(self._admission, new, spending, stop), stop)

    def _news(self, found: Alarms) -> Alarms:
        """What has not been said. A bound is not worth a word any more once the thing itself was said."""
        return Alarms(
            tuple(share for share in found.thresholds if self._first(share)),
            over_budget=found.over_budget and self._first("over_budget"),
            over_bound=found.over_bound and not self.overran and self._first("over_bound"),
            low=found.low and self._first("low"),
        )

    def _first(self, what: object) -> bool:
        """Whether the caller is the first to say it, of all threads."""
        mine = object()
        return self._said.setdefault(what, mine) is mine

    def _events(
        self, admission: Admission, new: Alarms, spending: Spending, stop: BudgetExceeded | None
    ) -> list[Event]:
        spent, trend = spending.spent, self.trend
        now = events.SpentNow(
            spent,
            spending.basis,
            None if spent is None else whole(EXACT.subtract(self.plan.budget, spent)),
            trend.last if trend else None,
            trend.burn_rate if trend else None,
            trend.time_to_empty if trend else None,
        )
        found = [events.threshold(admission, share, now) for share in new.thresholds]
        if new.over_bound or new.over_budget:
            stopping = stop is not None and new.over_budget and self.plan.on_overrun == "stop"
            found.append(events.overrun(admission, "budget", now, stopping=stopping))
        if new.low:
            found.append(events.overrun(admission, "stop_below", now, stopping=True))
        return found
