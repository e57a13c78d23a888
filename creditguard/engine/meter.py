"""What a run has spent so far: fed with what the job records and with balance readings, says what is worth saying.

The rules are in `policy`; here is the state that they are applied to, under a lock, for jobs record in threads of their own.
"""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import NamedTuple

from creditguard.errors import BudgetExceeded
from creditguard.rules import events
from creditguard.rules.amounts import EXACT, whole
from creditguard.rules.consumption import overlapping
from creditguard.rules.events import Event
from creditguard.rules.spending import Alarms, Spending, Trend, alarms, reason_to_stop, spent_so_far
from creditguard.rules.values import Admission, Mark, Plan


class Findings(NamedTuple):
    """Events to log, and why the run is to stop, if it is."""

    events: tuple[Event, ...] = ()
    stop: BudgetExceeded | None = None


_NOTHING = Findings()
_SILENCE = Alarms()


class Meter:
    """The meter of one run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._said = _SILENCE
        self._overlaps: int | None = None
        self._admission: Admission | None = None
        self.recorded: Decimal | None = None
        self.trend: Trend | None = None

    @property
    def overran(self) -> bool:
        """Whether the run was seen over its budget, for sure."""
        return self._said.over_budget

    @property
    def spending(self) -> Spending:
        """What the run has spent, and how sure that is."""
        balance = self._admission.balance if self._admission else None
        return spent_so_far(balance.amount if balance else None, self.recorded, self.trend, self._overlaps)

    def begin(self, admission: Admission) -> None:
        """The run is admitted."""
        self._admission = admission
        if self._plan.watch and admission.balance:
            self.trend = Trend.begin(admission.balance.amount, admission.started)

    def record(self, used: Decimal) -> Findings:
        """The job says that it used so much."""
        with self._lock:
            self.recorded = used if self.recorded is None else EXACT.add(self.recorded, used)
            if self.recorded <= self._plan.budget and not self._plan.watch:
                return _NOTHING
            return self._findings()

    def observe(self, amount: Decimal, mark: Mark | None, at: float) -> Findings:
        """A balance was read, and then the ledger marked, at `at` (monotonic seconds)."""
        with self._lock:
            self.trend = self.trend.seen(amount, at) if self.trend else Trend.begin(amount, at)
            if self._admission:
                self._overlaps = overlapping(self._admission.mark, mark)
            return self._findings()

    def _findings(self) -> Findings:
        if self._admission is None:
            return _NOTHING
        plan, spending = self._plan, self.spending
        balance_now = self.trend.last if self.trend else None
        new = alarms(plan, spending, balance_now).without(self._said)
        if new == _SILENCE:
            return _NOTHING
        self._said = self._said.together(new)
        stop = reason_to_stop(plan, new, spending, balance_now)
        return Findings(tuple(self._events(self._admission, new, spending, stop)), stop)

    def _events(
        self, admission: Admission, new: Alarms, spending: Spending, stop: BudgetExceeded | None
    ) -> list[Event]:
        spent, trend = spending.spent, self.trend
        meter = events.Meter(
            spent,
            spending.basis,
            None if spent is None else whole(EXACT.subtract(self._plan.budget, spent)),
            trend.last if trend else None,
            trend.burn_rate if trend else None,
            trend.time_to_empty if trend else None,
        )
        found = [events.threshold(admission, share, meter) for share in new.thresholds]
        if new.over_bound or new.over_budget:
            stopping = stop is not None and new.over_budget and self._plan.on_overrun == "stop"
            found.append(events.overrun(admission, "budget", meter, stopping=stopping))
        if new.low:
            found.append(events.overrun(admission, "stop_below", meter, stopping=True))
        return found
