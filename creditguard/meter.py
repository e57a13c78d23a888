"""What a run has spent so far: fed with what the job records and with balance readings, says what is worth saying.

The rules are in `policy`; here is the state that they are applied to, under a lock, for jobs record in threads of their own.
"""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import NamedTuple

from creditguard import events, policy
from creditguard.course import Course
from creditguard.errors import BudgetExceeded
from creditguard.events import Event
from creditguard.models import EXACT, Admission, Mark, Plan, whole


class Findings(NamedTuple):
    """Events to log, and why the run is to stop, if it is."""

    events: tuple[Event, ...] = ()
    stop: BudgetExceeded | None = None


_NOTHING = Findings()
_SILENCE = policy.Alarms()


class Meter:
    """The meter of one run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._said = _SILENCE
        self._overlaps: int | None = None
        self._admission: Admission | None = None
        self.recorded: Decimal | None = None
        self.course: Course | None = None

    @property
    def overran(self) -> bool:
        """Whether the run was seen over its budget, for sure."""
        return self._said.over_budget

    @property
    def spending(self) -> policy.Spending:
        """What the run has spent, and how sure that is."""
        balance = self._admission.balance if self._admission else None
        return policy.spending(balance.amount if balance else None, self.recorded, self.course, self._overlaps)

    def begin(self, admission: Admission) -> None:
        """The run is admitted."""
        self._admission = admission
        if self._plan.watch and admission.balance:
            self.course = Course.begin(admission.balance.amount, admission.started)

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
            self.course = self.course.seen(amount, at) if self.course else Course.begin(amount, at)
            if self._admission:
                self._overlaps = policy.overlapping(self._admission.mark, mark)
            return self._findings()

    def _findings(self) -> Findings:
        if self._admission is None:
            return _NOTHING
        plan, spending = self._plan, self.spending
        balance_now = self.course.last if self.course else None
        new = policy.alarms(plan, spending, balance_now).without(self._said)
        if new == _SILENCE:
            return _NOTHING
        self._said = self._said.together(new)
        stop = policy.stop(plan, new, spending, balance_now)
        return Findings(tuple(self._events(self._admission, new, spending, stop)), stop)

    def _events(
        self, admission: Admission, new: policy.Alarms, spending: policy.Spending, stop: BudgetExceeded | None
    ) -> list[Event]:
        spent, course = spending.spent, self.course
        meter = events.Meter(
            spent,
            spending.basis,
            None if spent is None else whole(EXACT.subtract(self._plan.budget, spent)),
            course.last if course else None,
            course.burn_rate if course else None,
            course.time_to_empty if course else None,
        )
        found = [events.threshold(admission, share, meter) for share in new.thresholds]
        if new.over_bound or new.over_budget:
            stopping = stop is not None and new.over_budget and self._plan.on_overrun == "stop"
            found.append(events.overrun(admission, "budget", meter, stopping=stopping))
        if new.low:
            found.append(events.overrun(admission, "stop_below", meter, stopping=True))
        return found
