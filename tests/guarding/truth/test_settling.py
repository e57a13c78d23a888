"""A balance is read at one instant and money moves at others: what the report says then, and that none calls a wrong number certain."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime, timezone

import pytest
from freezegun import freeze_time

from creditguard import ConfigurationError, guard
from creditguard.ledgers import open_ledger

from .conftest import WATCH, certain, until


def test_by_default_nothing_is_waited_for_and_nothing_is_certain(gateway, submit):
    gateway.lag(3)
    started = time.monotonic()
    with guard("nightly", budget=50) as run:
        submit(24)
    assert time.monotonic() - started < 5
    assert (run.report.credits_consumed, run.report.basis, run.report.settled) == (0, "account_delta", False)
    assert run.report.pending is None
    assert gateway.balance_reads == 2


def test_a_balance_that_lags_three_readings_is_read_until_it_rests(gateway, submit):
    gateway.lag(3)
    with guard("nightly", budget=50, settle="stable:5") as run:
        submit(24)
    assert (run.report.credits_consumed, run.report.basis, run.report.settled) == (24, "account_delta", True)
    assert gateway.balance_reads == 1 + 5  # stale three times, then the truth twice


def test_the_hold_lasts_until_then(gateway, submit, monkeypatch):
    ledger = open_ledger(os.environ["CREDITGUARD_LEDGER"])
    held = []
    gateway.lag(3)
    with guard("nightly", budget=50, settle="stable:5") as run:
        submit(24)
        source = run._life.parts.readings.source
        read = type(source).read
        monkeypatch.setattr(
            type(source), "read", lambda self, timeout: (held.append(len(ledger.holds())), read(self, timeout))[1]
        )
    assert held == [1] * 5
    assert ledger.holds() == []


def test_a_balance_that_never_moves_is_not_taken_for_the_truth(gateway, submit):
    gateway.lag(500)
    with guard("nightly", budget=50, settle="stable:0.1") as run:
        submit(24)
    assert run.report.credits_consumed == 0
    assert not run.report.settled


@pytest.mark.parametrize("settle", [0.05, "stable:1"])
def test_unless_nothing_was_to_be_spent(gateway, settle):
    with guard("empty", budget=0, settle=settle) as run:
        pass
    assert run.report.settled
    with guard("nightly", budget=50, settle=settle) as run:
        run.record(0)
    assert (run.report.credits_consumed, run.report.basis, run.report.settled) == (0, "recorded", True)


def test_seconds_are_waited_and_then_it_is_settled(gateway, submit):
    gateway.fail_next_tasks(1)
    gateway.refund_delay = 0.1
    started = time.monotonic()
    with guard("nightly", budget=50, settle=0.3) as run:
        submit()
        submit()
    assert time.monotonic() - started >= 0.3
    assert (run.report.credits_consumed, run.report.settled) == (8, True)  # the refund is in it
    assert gateway.balance_reads == 2


def test_a_refund_after_exit_is_foreseen_by_who_knows_of_the_open_task(gateway, submit):
    gateway.fail_next_tasks(1)
    gateway.refund_delay = 0.5
    for settle in (0, 0.05, "stable:0.2"):
        with guard("nightly", budget=50, settle=settle) as run:
            submit()
            run.record(8)
            run.pending(1)
        assert not certain(run.report)
        assert run.report.pending == 1


def test_a_refund_while_settling_gives_the_net_figure_but_is_not_called_certain(gateway, submit):
    gateway.fail_next_tasks(1)
    gateway.refund_delay = 0.05
    with guard("nightly", budget=50, min_interval=0.1, settle="stable:3") as run:
        submit()
        submit()
    assert run.report.credits_consumed == 8
    assert not run.report.settled  # a top-up would look the same
    assert run.report.over_budget is None


def test_the_jobs_own_word(gateway, submit):
    with guard("nightly", budget=50) as run:
        submit(24)
        run.settled()
    assert (run.report.settled, run.report.pending, run.report.credits_consumed) == (True, 0, 24)
    with guard("nightly", budget=50) as run:
        submit(24)
        run.pending(2)
        run.pending(0)
    assert run.report.settled
    gateway.lag(5)
    with guard("nightly", budget=50) as run:
        submit(24)
        run.settled()
    assert not run.report.settled  # it cannot be: the balance has not moved
    with pytest.raises(ConfigurationError, match="pending"):
        run.pending(-1)
    with pytest.raises(ConfigurationError, match="pending"):
        run.pending(True)


def test_a_record_that_the_account_confirms_settles_at_once(gateway, submit):
    with guard("nightly", budget=50, settle="stable:30", min_interval=10) as run:
        run.record(submit(24))
        run.settled()
    assert run.report.settled
    assert gateway.balance_reads == 2


def test_but_not_while_others_are_on_the_account(gateway, submit):
    with guard("other", budget=5), guard("nightly", budget=50, settle="stable:2") as run:
        run.record(submit(24))
        run.settled()
    assert run.report.settled
    assert gateway.balance_reads >= 4


def test_a_stranger_who_goes_on_spending_keeps_it_from_settling(gateway):
    gateway.set_credits(10_000)
    for reading in range(2, 100):
        gateway.schedule(drain=1, at_reading=reading)
    with guard("nightly", budget=50, settle="stable:0.3") as run:
        gateway.drain(20)
    assert run.report.credits_consumed > 20
    assert not certain(run.report)


def test_a_stranger_shows_as_drift_where_the_job_records(gateway, submit, events):
    with guard("nightly", budget=50, settle="stable:1") as run:
        run.record(submit(16))
        gateway.drain(10)
    assert (run.report.credits_consumed, run.report.basis, run.report.drift) == (16, "recorded", 10)
    (drift,) = events.all("drift")
    assert (drift.levelname, drift.drift, drift.credits_recorded, drift.settled) == ("WARNING", 10, 16, True)
    assert "somebody else" in drift.reason


@pytest.mark.parametrize(
    ("stranger", "tolerance", "warned"), [(1, None, 0), (2, None, 1), (2, 5, 0), (6, 5, 1), (1, 0, 1)]
)
def test_the_tolerance_of_drift(gateway, submit, events, stranger, tolerance, warned):
    with guard("nightly", budget=50, drift_tolerance=tolerance) as run:
        run.record(submit(16))
        run.settled()
        gateway.drain(stranger)
    assert len(events.all("drift")) == warned


def test_others_that_are_guarded_explain_the_drift(gateway, submit, events):
    with guard("other", budget=5), guard("nightly", budget=50) as run:
        run.record(submit(16))
        gateway.drain(10)
    assert run.report.drift == 10
    assert not events.all("drift")


def test_an_account_that_is_only_behind_is_no_drift(gateway, submit, events):
    gateway.lag(3)
    with guard("nightly", budget=50) as run:
        run.record(submit(16))
    assert run.report.drift == -16
    assert not events.all("drift")


def test_a_top_up_in_mid_run_is_seen_by_the_watch(gateway, submit):
    with guard("nightly", budget=60, watch=WATCH) as run:
        submit(30)
        assert until(lambda: run.balance_now == 90)
        gateway.top_up(20)
        assert until(lambda: run.balance_now == 110)
        submit(25)
    report = run.report
    assert (report.credits_consumed, report.basis, report.consumed_at_least) == (None, "unknown", 55)
    assert report.balance_delta == 35  # which would have passed for the truth
    assert report.over_budget is None


def test_what_others_may_have_spent_is_no_bound(gateway, submit):
    with guard("other", budget=5), guard("nightly", budget=60, watch=WATCH) as run:
        submit(30)
        assert until(lambda: run.balance_now == 90)
        gateway.top_up(20)
        assert until(lambda: run.balance_now == 110)
    assert (run.report.basis, run.report.consumed_at_least) == ("unknown", None)


def test_recorded_use_still_counts_after_a_top_up(gateway, submit):
    with guard("nightly", budget=60, watch=WATCH) as run:
        run.record(submit(30))
        gateway.top_up(500)
    assert (run.report.credits_consumed, run.report.basis) == (30, "recorded")


def test_a_reset_at_midnight(gateway, submit):
    """A daily allowance of 120 is filled up while the job runs; the clock of the host stands still all the while."""
    nightly = guard("nightly", budget=60, watch=WATCH, settle="stable:1")
    with freeze_time(datetime(2026, 1, 1, 23, 59, 59, tzinfo=timezone.utc)) as clock, nightly as run:
        submit(30)
        assert _real_wait(lambda: run.balance_now == 90)
        clock.tick(2)
        gateway.set_credits(120)
        assert _real_wait(lambda: run.balance_now == 120)
        submit(20)
    assert (run.report.basis, run.report.credits_consumed, run.report.consumed_at_least) == ("unknown", None, 50)


def test_a_reset_that_no_reading_saw_is_not_certain(gateway, submit):
    with guard("nightly", budget=60) as run:
        submit(30)
        gateway.set_credits(120)
        submit(20)
    assert (run.report.credits_consumed, run.report.basis) == (20, "account_delta")
    assert not certain(run.report)


def _real_wait(condition) -> bool:
    for _ in range(1000):
        if condition():
            return True
        threading.Event().wait(0.005)
    return False


def test_a_balance_that_replays_a_pause_of_the_run_has_not_come_to_rest(gateway, submit):
    """It lags by three readings, and the job rested for two of them: two readings that agree may still be that rest."""
    gateway.lag(3)
    with guard("nightly", budget=60, watch=WATCH, settle="stable:5") as run:
        for _ in range(4):
            submit(8)
            reads = gateway.balance_reads
            assert until(lambda reads=reads: gateway.balance_reads >= reads + 2)
    assert not certain(run.report) or run.report.credits_consumed == 32


def test_a_reading_that_fails_in_between_is_passed_over(gateway, submit, events):
    with guard("nightly", budget=50, settle="stable:2") as run:
        submit(24)
        gateway.fault(status=404, times=1)
    assert (run.report.credits_consumed, run.report.settled) == (24, True)
    assert events.names == ["admitted", "finished"]


@pytest.mark.parametrize("settle", ["stable", "stable:0", "stable:120", " stable ", "30", 30, 0.5])
def test_what_settle_may_be(gateway, settle):
    guard("nightly", budget=5, settle=settle)


@pytest.mark.parametrize("settle", ["stabel", "stable:x", "stable:-1", -1, True, float("nan"), []])
def test_what_settle_may_not_be(gateway, settle):
    with pytest.raises(ConfigurationError, match="settle"):
        guard("nightly", budget=5, settle=settle)


def test_settings_of_settling(gateway, submit, monkeypatch):
    monkeypatch.setenv("CREDITGUARD_SETTLE", "stable:2")
    gateway.lag(1)
    with guard("nightly", budget=50) as run:
        submit(24)
    assert run.report.settled
    monkeypatch.setenv("CREDITGUARD_MIN_INTERVAL", "-1")
    with pytest.raises(ConfigurationError, match="CREDITGUARD_MIN_INTERVAL"), guard("nightly", budget=50):
        pass
