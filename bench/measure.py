"""Ratios inside one run: the floor, whatever is held against it, and the floor once more, in every round.

Each round runs floor, candidates, floor; every other round has the candidates backwards. A candidate is compared with the mean
of the two floors around it, so a machine that gets slower or faster meanwhile cancels out, and the median over all rounds leaves
out what others did to single ones. The second floor over the first is the A/A noise: what this machine makes of no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import TypeAlias

Arm: TypeAlias = Callable[[], float]
"""Does its work and says how long that took, in seconds."""


@dataclass(frozen=True)
class Noise:
    """The floor against itself: the median over the rounds, and the middle half of them."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, first: list[float], second: list[float]) -> Noise:
        ratios = [b / a for a, b in zip(first, second, strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return cls(middle, low, high)

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Comparison:
    """The seconds of each round."""

    floor: list[float]
    again: list[float]
    candidates: dict[str, list[float]]

    @property
    def noise(self) -> Noise:
        return Noise.of(self.floor, self.again)

    def ratio(self, name: str) -> float:
        floors = [(a + b) / 2 for a, b in zip(self.floor, self.again, strict=True)]
        return median(candidate / floor for candidate, floor in zip(self.candidates[name], floors, strict=True))

    def per_call(self, name: str, per: int) -> float:
        """Milliseconds of one of `per` calls, the median."""
        return median(self.candidates[name]) * 1000 / per

    def own(self, name: str, per: int) -> float:
        """Milliseconds by which one of `per` calls is slower than the floor, the median over the rounds."""
        rounds = zip(self.candidates[name], self.floor, self.again, strict=True)
        return median(candidate - (a + b) / 2 for candidate, a, b in rounds) * 1000 / per

    def milliseconds(self, name: str, per: int = 1) -> str:
        """The medians, as a detail: absolute times say little on a machine that is shared."""
        floor = median(self.floor + self.again) * 1000 / per
        return f"{self.per_call(name, per):.3g} ms against {floor:.3g} ms"


def compare(floor: Arm, candidates: Mapping[str, Arm], *, rounds: int, warm: bool = True) -> Comparison:
    """Run everything once to warm up (unless `warm` says that nobody is cold), then `rounds` times to measure."""
    if warm:
        for arm in (floor, *candidates.values()):
            arm()
    result = Comparison([], [], {name: [] for name in candidates})
    names = list(candidates)
    for turn in range(rounds):
        result.floor.append(floor())
        for name in reversed(names) if turn % 2 else names:
            result.candidates[name].append(candidates[name]())
        result.again.append(floor())
    return result


def timed(work: Callable[[], object], calls: int = 1) -> Arm:
    """An arm that does `work` so many times in a row, after once for nothing: what ran before it has cooled the caches."""

    def arm() -> float:
        work()
        start = perf_counter()
        for _ in range(calls):
            work()
        return perf_counter() - start

    return arm
