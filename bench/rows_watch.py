"""What it costs to watch runs: a thousand in one process against one, in processor time, requests and threads."""

from __future__ import annotations

import threading
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
    """The readings must not grow with the number of runs, and one thread does them all."""
    many = world.pick(1_000, 100)
    one_run, many_runs = _Stretch(world, 1), _Stretch(world, many)
    arms: dict[str, Arm] = {"many": many_runs.run}
    found = compare(one_run.run, arms, rounds=world.pick(3, 1), warm=False)
    detail = (
        f"{many_runs.readings} readings in {many_runs.seconds} s against {one_run.readings}, {many_runs.threads} thread, "
        f"{many_runs.share:.1%} of a processor against {one_run.share:.1%}"
    )
    met = many_runs.threads == 1 and many_runs.readings <= one_run.readings + 1
    yield Line(
        f"{many:,} watched runs, processor time",
        "1 watched run",
        found.ratio("many"),
        found.noise,
        "1 thread",
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
            self.threads = sum(thread.name.startswith("creditguard") for thread in threading.enumerate())
        self.share = cpu / self.seconds
        return cpu
