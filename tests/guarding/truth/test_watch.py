"""Readings while jobs run: what they say, how few they are, and what they must not disturb."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from creditguard import Balance, ConfigurationError, current_run, guard
from creditguard.engine.engine import engine
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.rules.spending import Spending

from .conftest import WATCH, until


class Source:
    """A source that answers from a list, its last amount again and again, and can be made to hang."""

    name, unit = "scripted", "credits"

    def __init__(self, *amounts):
        self.account = f"scripted-{id(self)}"
        self.amounts = list(amounts)
        self.reads = 0
        self.hang = threading.Event()
        self.hanging = threading.Event()

    def read(self, timeout):
        self.reads += 1
        if self.hang.is_set():
            self.hanging.set()
            time.sleep(timeout)
            self.hanging.clear()
        amount = self.amounts.pop(0) if len(self.amounts) > 1 else self.amounts[0]
        return Balance(Decimal(amount), "credits", datetime.now(timezone.utc))


class Nowhere:
    def emit(self, event):
        pass


@pytest.mark.parametrize("records", [True, False])
def test_each_threshold_is_an_event_once(gateway, submit, events, records):
    with guard("nightly", budget=100, watch=WATCH, thresholds=(0.8, 0.5, 1)) as run:
        for _ in range(3):
            cost = submit(30)
            if records:
                run.record(cost)
            assert until(lambda: run.balance_now == gateway.credits)
        submit(20)
        if records:
            run.record(20)
        assert until(lambda: len(events.all("overrun")) == 1)
        assert until(lambda: run.balance_now == 10)
    assert events.names == ["admitted", "threshold", "threshold", "threshold", "overrun", "finished"]
    assert [event.threshold for event in events.all("threshold")] == [0.5, 0.8, 1]
    half = events.all("threshold")[0]
    assert (half.levelname, half.spent, half.remaining) == ("WARNING", 60, 40)
    assert half.spent_basis == ("recorded" if records else "account_delta")
    over = events.all("overrun")[0]
    assert (over.levelname, over.cause, over.spent, over.stopping) == ("WARNING", "budget", 110, False)
    assert run.report.over_budget
    assert not run.report.stopped


def test_over_budget_by_its_own_record_is_said_at_once_and_without_a_watch(gateway, events):
    with guard("nightly", budget=10) as run:
        run.record(10)
        assert events.names == ["admitted"]
        run.record(1)
        run.record(1)
        assert until(lambda: events.names == ["admitted", "overrun"])
        assert run.burn_rate is None
        assert run.time_to_empty is None
        assert run.balance_now == 120
    assert run.report.over_budget


def test_the_forecast(gateway):
    with guard("nightly", budget=100, watch=WATCH) as run:
        assert run.burn_rate is None
        gateway.drain(60)
        assert until(lambda: run.balance_now == 60)
        assert run.burn_rate > 60
        assert run.time_to_empty == pytest.approx(60 * 60 / run.burn_rate, abs=0.1)
        assert run.spending == Spending(Decimal(60), "account_delta")
        assert until(lambda: run.burn_rate == 0)  # nothing more is spent
        assert run.time_to_empty is None


def test_one_reading_serves_all_runs():
    """1,000 watched runs: readings go by time and not by runs."""
    source = Source(1000)
    with ExitStack() as stack:
        many = guard(
            "one of many", budget=1, watch=WATCH, min_interval=0.01, ledger="none", source=source, sink=Nowhere()
        )
        runs = [stack.enter_context(many) for _ in range(1000)]
        assert until(lambda: runs[-1].burn_rate is not None)
        reads, started = source.reads, time.monotonic()
        time.sleep(10 * WATCH)
        reads, took = source.reads - reads, time.monotonic() - started
        assert 1 <= reads <= took / WATCH + 2
        source.amounts = [990]
        assert until(lambda: all(run.balance_now == 990 for run in runs))
    assert runs[0].report.overlapping_runs == 999


def test_never_more_often_than_is_polite(gateway):
    with guard("nightly", budget=10, watch=0.01, min_interval=30):
        time.sleep(0.2)
    assert gateway.balance_reads == 2


def test_a_reading_that_fails_is_passed_over(gateway, events):
    with guard("nightly", budget=100, watch=WATCH) as run:
        gateway.fault(status=404, times=2)
        gateway.drain(10)
        assert until(lambda: run.balance_now == 110)
    assert events.names == ["admitted", "finished"]


def test_an_upper_bound_is_named_one(gateway, events):
    with guard("other", budget=5), guard("nightly", budget=10, watch=WATCH):
        gateway.drain(20)
        assert until(lambda: events.all("overrun"))
    assert events.all("overrun")[0].spent_basis == "shared_account_delta"
    assert {event.spent_basis for event in events.all("threshold")} == {"shared_account_delta"}


def test_after_a_top_up_it_is_a_lower_bound(gateway, events):
    with guard("nightly", budget=40, watch=WATCH) as run:
        gateway.drain(10)
        assert until(lambda: run.balance_now == 110)
        gateway.top_up(5)
        assert until(lambda: run.balance_now == 115)
        gateway.drain(60)
        assert until(lambda: events.all("overrun"))
    over = events.all("overrun")[0]
    assert (over.spent, over.spent_basis) == (65, "at_least")
    assert (run.report.basis, run.report.over_budget) == ("unknown", True)


def test_leases_are_renewed_while_a_reading_hangs(tmp_path):
    """Every reading hangs until its deadline, which the watch sets at a sixth of a lease."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3", ttl=1.2)
    source = Source(100)
    with guard("nightly", budget=10, source=source, ledger=ledger, watch=0.05, min_interval=0.01) as run:
        source.hang.set()
        assert source.hanging.wait(5)
        time.sleep(2.5)  # two leases
        assert source.reads > 5
        source.hang.clear()
    assert not run.lease_lost
    assert not run.report.lease_lost


def test_a_job_that_is_over_is_not_read_for(gateway):
    with guard("nightly", budget=10, watch=WATCH):
        pass
    reads = gateway.balance_reads
    time.sleep(4 * WATCH)
    assert gateway.balance_reads == reads


def test_a_run_that_vanished_is_not_read_for(gateway):
    entry = guard("nightly", budget=10, watch=WATCH, ledger="none")._entry()
    entry.__enter__()
    del entry
    reads = gateway.balance_reads
    time.sleep(4 * WATCH)
    assert gateway.balance_reads <= reads + 1


def test_a_forked_child_does_not_watch_for_its_parent(gateway):
    with guard("nightly", budget=10, watch=WATCH):
        pid = os.fork()
        if pid == 0:
            os._exit(len(engine().runs))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_decorated_jobs_are_watched_too(gateway, events):
    @guard(budget=40, watch=WATCH)
    def job():
        gateway.drain(30)
        assert until(lambda: current_run().balance_now == 90)

    job()
    assert events.names == ["admitted", "threshold", "finished"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"watch": -1}, "watch"),
        ({"watch": "often"}, "watch"),
        ({"watch": True}, "watch"),
        ({"thresholds": (0,)}, "thresholds"),
        ({"thresholds": 0.5}, "thresholds"),
        ({"thresholds": ("half",)}, "thresholds"),
        ({"thresholds": (101,)}, "thresholds"),
        ({"thresholds": "0.5"}, "thresholds"),
        ({"on_overrun": "kill"}, "on_overrun"),
        ({"stop_below": 5}, "watch"),
        ({"stop_below": "x", "watch": 1}, "stop_below"),
        ({"min_interval": -1}, "min_interval"),
        ({"drift_tolerance": -1}, "drift_tolerance"),
    ],
)
def test_what_the_watch_may_not_be(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        guard("nightly", budget=5, **arguments)
