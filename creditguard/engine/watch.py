"""A look at the balance every now and then while jobs run: one reading for all watched runs of an account, however many there are.

It is taken as often as the most curious of them asks, in a service thread. A reading that fails is passed over: there will be
another.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from creditguard.engine.desk import PARKED
from creditguard.engine.readings import Readings
from creditguard.errors import BalanceUnavailable, LedgerError
from creditguard.process.background import seconds
from creditguard.rules.values import Balance

if TYPE_CHECKING:
    from creditguard.engine.lifecycle import Lifecycle

_NEXT = 2.0
"""Seconds after the deadline of a look that does not come back until the next one."""


class Watch:
    """The watched runs of one account."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._runs: dict[int, Lifecycle] = {}
        self._due = float("inf")

    def add(self, run: Lifecycle) -> None:
        """Watch the run from now on, until `remove`."""
        self._runs[id(run)] = run
        self._look_in(run.interval)

    def remove(self, run: Lifecycle) -> None:
        """The run is over."""
        self._runs.pop(id(run), None)

    def _look_in(self, delay: float) -> None:
        due = seconds() + delay
        if due < self._due:
            self._due = due
            engine = self._readings.leases.engine
            engine.later(delay, partial(self._look, due))

    def _look(self, due: float) -> None:
        if due != self._due:
            return
        self._due = float("inf")
        if not self._runs:
            return
        readings, started = self._readings, seconds()
        ttl = readings.leases.ledger.ttl
        self._look_in(
            readings.timeout + _NEXT
        )  # should this look hang; a reading that comes back asks for an earlier one
        for run in list(self._runs.values()):
            run.meter.about_to_look()
        try:
            balance = readings.glance(readings.timeout if ttl is None else ttl / 6)
            mark = readings.leases.mark(readings.account, partial(self._show, balance))
        except BalanceUnavailable:
            logging.getLogger("creditguard").debug("a reading of the watch failed", exc_info=True)
        except LedgerError as error:
            self._show(balance, None, error)
        else:
            if mark is not PARKED:
                self._show(balance, mark, None)
        intervals = [run.interval for run in list(self._runs.values())]
        if intervals:
            self._look_in(max(min(intervals) - (seconds() - started), min(intervals) / 2))

    def _show(self, balance: Balance, mark: Any, no_mark: Exception | None) -> None:
        at = time.monotonic()
        for run in list(self._runs.values()):
            try:
                run.observe(balance, None if no_mark else mark, at)
            except Exception:
                logging.getLogger("creditguard").exception("a run could not be watched")
