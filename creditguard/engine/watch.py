"""Balance readings while jobs run: one serves all watched runs of the same source and account, however many there are.

The attendant takes them, as often as the most curious of the runs asks. A reading that fails is passed over: there will be
another. Each brings a deadline well below a lease, for the attendant has leases to renew.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

from creditguard.engine.readings import Readings
from creditguard.process import forks
from creditguard.process.background import attendant
from creditguard.rules.values import Balance, Mark


class Watched(Protocol):
    """A run, as the watch sees it."""

    @property
    def interval(self) -> float:
        """Seconds between readings."""
        ...

    def observe(self, balance: Balance, mark: Mark | None, at: float) -> None:
        """Take in a reading, with the mark that was taken after it. Called in the attendant's thread."""
        ...


class Watch:
    """The watched runs of one account."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self.reset_after_fork()
        forks.register(self)

    def reset_after_fork(self) -> None:
        """Start with no runs: the parent's are the parent's to watch."""
        self._lock = threading.Lock()
        self._runs: WeakSet[Watched] = WeakSet()

    def add(self, run: Watched) -> None:
        """Watch the run from now on, until `remove`, or until the object is gone."""
        with self._lock:
            self._runs.add(run)
        attendant.add(self._look, run.interval)

    def remove(self, run: Watched) -> None:
        """The run is over."""
        with self._lock:
            self._runs.discard(run)

    def _look(self) -> float | None:
        with self._lock:
            runs = list(self._runs)
        if not runs:
            return None
        started = time.monotonic()
        try:
            balance, mark = self._readings.glance()
        except Exception:
            logging.getLogger("creditguard").debug("a reading of the watch failed", exc_info=True)
        else:
            at = time.monotonic()
            for run in runs:
                self._show(run, balance, mark, at)
        interval = min(run.interval for run in runs)
        return max(interval - (time.monotonic() - started), interval / 2)

    @staticmethod
    def _show(run: Watched, balance: Balance, mark: Mark | None, at: float) -> None:
        try:
            run.observe(balance, mark, at)
        except Exception:
            logging.getLogger("creditguard").exception("a run could not be watched")


_watches: WeakValueDictionary[Readings, Watch] = WeakValueDictionary()


def watch_of(readings: Readings) -> Watch:
    """The one watch of these readings. It lives as long as somebody has it: a run, or the attendant."""
    return _watches.get(readings) or _watches.setdefault(readings, Watch(readings))
