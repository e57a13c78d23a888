"""What it costs to watch runs: a thousand in one process against one, in processor time, requests and threads."""

from __future__ import annotations

import _thread
import time
from collections.abc import Iterator
from contextlib import ExitStack

from measure import Arm, compare
from table import Line
from world import World

from creditguard import guard

EVERY = 0.25
"""Seconds between two readings: sixty times as often as any account should be asked, to see something in a few seconds."""


def watched(world: World) -> Iterator[Line]:
    """The readings must not grow with the number of runs, nor must the threads of the engine that does them."""
    many = world.pick(1_000, 100)
    one_run, many_runs = _Stretch(world, 1), _Stretch(world, many)
    arms: dict[str, Arm] = {"many": many_runs.run}
    found = compare(one_run.run, arms, rounds=world.pick(3, 1), warm=False)
    detail = (
        f"{many_runs.readings} readings in {many_runs.seconds} s against {one_run.readings}, "
        f"{many_runs.threads} threads of the engine against {one_run.threads}, "
        f"{many_runs.share:.1%} of a processor against {one_run.share:.1%}"
    )
    met = many_runs.threads <= one_run.threads and many_runs.readings <= one_run.readings + 1
    yield Line(
        f"{many:,} watched runs, processor time",
        "1 watched run",
        found.ratio("many"),
        found.noise,
        "no more threads",
        met,
        detail,
    )


class _Stretch:
    """A few seconds in which so many runs are watched. Keeps the largest number of readings, and the last figures."""

    def __init__(self, world: World, many: int) -> None:
        self._world = world
        self._guard = guard(
            "watched", budget=1, ledger=world.sqlite(f"watched-{many}"), watch=EVERY, min_interval=EVERY
        )
        self._many = many
        self.seconds = world.pick(4, 1)
        self.readings = self.threads = 0
        self.share = 0.0

    def run(self) -> float:
        with ExitStack() as stack:
            for _ in range(self._many):
                stack.enter_context(self._guard)
            before, cpu = self._world.balance_requests(), time.process_time()
            time.sleep(self.seconds)
            cpu = time.process_time() - cpu
            self.readings = max(self.readings, self._world.balance_requests() - before)
            self.threads = _thread._count()  # noqa: SLF001 - all but this one are the engine's, which threading does not know
        self.share = cpu / self.seconds
        return cpu
