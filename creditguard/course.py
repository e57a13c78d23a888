"""What the balance readings of one run say together: each is compared with the one before it. Pure.

A balance that falls is spending, the run's own or other people's. One that rises is a refund, a top-up or a reset, and nothing
tells which. So falls are added up by themselves, and a rise is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from creditguard.models import EXACT, ZERO

_RECENT = 6
"""Readings that the burn rate rests on: enough to smooth a bursty job, few enough to follow one that has changed its pace."""


@dataclass(frozen=True, slots=True)
class Course:
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
    def begin(cls, amount: Decimal, at: float) -> Course:
        """The course that starts with this reading."""
        return cls(amount, at, recent=((at, ZERO),))

    def seen(self, amount: Decimal, at: float) -> Course:
        """The course with one more reading."""
        fallen = EXACT.add(self.fallen, max(EXACT.subtract(self.last, amount), ZERO))
        recent = (*self.recent[1 - _RECENT :], (at, fallen))
        if amount == self.last:
            return replace(self, at=at, recent=recent)
        pause = 0.0 if self.moved is None else at - self.moved
        return Course(
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
