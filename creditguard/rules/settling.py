"""How a run ends: whether its last figures are final.

A balance may lag: the figures are final only when it holds all debits and refunds of the run. Time shows that (the
caller names a time, or two readings in a row agree), or the job's own word. Neither counts while tasks are open, by the
job's own word; nor does a balance that has not moved at all show anything about a job that was to spend. A balance that
lags replays the run: two readings may agree because the job paused. So a pause at the end must outlast every pause that was
seen during the run. A refund that comes later than all this is not foreseen: only the job knows of it (`run.pending`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from creditguard.rules.amounts import EXACT
from creditguard.rules.spending import Trend
from creditguard.rules.values import Admission, Balance, Mark, Outcome


class Ending(NamedTuple):
    """How a run ended, and what was known of it by then."""

    outcome: Outcome
    recorded: Decimal | None
    ended: float
    """Monotonic seconds."""
    lease_lost: bool = False
    pending: int | None = None
    """How many of its tasks are open, by the job's own word; 0: it said that all are done."""
    trend: Trend | None = None
    """What the readings during the run said, the one at admission included."""
    overran: bool = False
    """The watch saw it over its budget, for sure."""
    stopped: bool = False
    hold_left: Decimal | None = None
    """What it still held."""


@dataclass(slots=True)
class Exit:
    """What the exit readings say. Filled in as they come, so that an interrupt in the middle loses nothing."""

    trend: Trend | None = None
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
        before, self.trend = self.trend, (self.trend.seen(amount, at) if self.trend else Trend.begin(amount, at))
        if before and amount > before.last:
            self.rose_after = self.rose_after or not first
        if first:
            self.rose = self.trend.rose


def trend_until_exit(admission: Admission, ending: Ending) -> Trend | None:
    """The trend that the exit readings go on from."""
    if ending.trend or admission.balance is None:
        return ending.trend
    return Trend.begin(admission.balance.amount, admission.started)


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
    if ending.pending or found.agree < 2 or found.trend is None or _shows_nothing(admission, ending, found):
        return False
    pause = ending.trend.longest_pause if ending.trend else 0.0
    return found.trend.at - found.since >= min(pause, plan.settle)


def agrees_with_record(admission: Admission, ending: Ending, found: Exit) -> bool:
    """Whether the account has lost exactly what the job recorded, and the job said that nothing is open: if nobody else was
    on the account there is nothing to wait for."""
    return ending.pending == 0 and ending.recorded is not None and _lost(admission, found) == ending.recorded
