"""What the attacks share: a source and a sink of our own, and the four promises that hold after whatever happened."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from datetime import datetime, timezone
from decimal import Decimal
from functools import partial
from itertools import count

from creditguard import guard
from creditguard.engine.engine import engine
from creditguard.ledgers import open_ledger
from creditguard.rules.values import Balance

_numbers = count()
STARTS = {"creditguard.admitted", "creditguard.short"}


class Pool:
    """A source in this process. `delay`: seconds that a reading takes."""

    name = "pool"
    unit = "credits"

    def __init__(self, amount=1_000_000, delay=0.0):
        self.account = f"pool-{next(_numbers)}"
        self.amount, self.delay, self.reads = Decimal(amount), delay, 0

    def read(self, timeout):
        self.reads += 1
        if self.delay:
            time.sleep(self.delay)
        return Balance(self.amount, self.unit, datetime.now(timezone.utc), None, self.name)


class Log:
    """A sink: every event, and the order of whatever else a test puts in between."""

    def __init__(self):
        self.lines = []
        self.events = []

    def emit(self, event):
        self.lines.append((event.name, event.fields.get("run_id")))
        self.events.append(event)

    def clear(self):
        self.lines.clear()
        self.events.clear()

    def runs(self):
        """By run id: how often it started, and how often it finished."""
        found = {}
        for name, run_id in list(self.lines):
            counts = found.setdefault(run_id, Counter())
            counts["started"] += name in STARTS
            counts["finished"] += name == "creditguard.finished"
        return found


class World:
    """One account on one ledger, and what is left of it."""

    def __init__(self, ledger):
        self.url = ledger
        self.pool, self.log = Pool(), Log()
        self.ledger = None if ledger == "none" else open_ledger(ledger)
        self._witness = self.guard("witness")

    def guard(self, name="attacked", budget=1, **options):
        options = {"source": self.pool, "ledger": self.url, "sink": self.log, "min_interval": 0, **options}
        return guard(name, budget=budget, **options)

    def holds(self):
        return [live.hold.id for live in self.ledger.holds()] if self.ledger else []

    def open_runs(self):
        return [run_id for run_id, life in list(engine().runs.items()) if life.parts.readings.source is self.pool]

    def wrong(self, within=2.0):
        """What is not as promised after so many seconds: holds that stay, runs that stay open, or that have not one `finished`
        each, a guard in another thread that does not get through. None if all is well."""
        if others := self._others():  # by then what was handed over before has been taken up, and is seen to be open
            return others
        for patience in (
            0.05,
            within,
        ):  # a collection takes longer than all the rest: it comes when something has been left
            if not until(lambda: not self._wrong(), patience):
                gc.collect()
        if not (wrong := self._wrong()):
            self.log.clear()
        return wrong

    def _wrong(self):
        if holds := self.holds():
            return f"holds stay: {holds}"
        if runs := self.open_runs():
            return f"runs stay open: {runs}"
        lost = {run: dict(seen) for run, seen in self.log.runs().items() if seen["started"] != seen["finished"]}
        twice = {run: dict(seen) for run, seen in self.log.runs().items() if max(seen.values()) > 1}
        return f"runs without one `finished` each: {lost or twice}" if lost or twice else None

    def _others(self):
        passed = []

        def pass_through():
            with self._witness as run:
                pass
            passed.append(run.report.outcome)

        thread = threading.Thread(target=pass_through, daemon=True)
        thread.start()
        thread.join(10)
        return None if passed == ["succeeded"] else f"a guard in another thread did not get through: {passed}"

    def close(self):
        if self.ledger:
            self.ledger.close()


def until(condition, within=5.0):
    """Wait for a condition; whether it came true in time."""
    ends = time.monotonic() + within
    while not (met := condition()) and time.monotonic() < ends:
        time.sleep(0.001)
    return met


def enter_and_leave(guard):
    """Run nothing, guarded; how that ended."""
    with guard as run:
        pass
    return run.report.outcome


def in_thread(work, *args):
    """Do the work in a daemon thread; a function that waits for it, and returns what came out."""
    results = []
    thread = threading.Thread(target=lambda: results.append(_outcome(partial(work, *args))), daemon=True)
    thread.start()

    def join(timeout=30):
        thread.join(timeout)
        assert results, "it hangs"
        return results[0]

    return join


def _outcome(work):
    try:
        return work()
    except BaseException as error:
        return error
