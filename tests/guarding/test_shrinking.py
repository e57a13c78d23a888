"""Holds follow the spending: what a run has recorded it holds no more, and what it asks for besides it is admitted for."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from creditguard import ConfigurationError, InsufficientCredits, LeaseLost, guard
from creditguard.engine.meter import Meter
from creditguard.ledgers import open_ledger
from creditguard.rules.values import Admission, Balance, Mark, Plan

pytestmark = pytest.mark.usefixtures("gateway")


def held(job):
    found = [
        hold.hold.amount / 10**6
        for hold in open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds()
        if hold.hold.job == job
    ]
    return found[0] if found else None


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_two_jobs_that_fit_together_are_both_admitted(gateway, events):
    """A holds 80 of 120 credits, and has spent and recorded 70 of them; B needs 30, and 40 are free."""
    with guard("a", budget=80) as a:
        gateway.drain(70)
        a.record(70)
        with guard("b", budget=30) as b:
            assert b.held_by_others == 10
    assert (a.report.hold_left, a.report.budget, a.report.credits_recorded) == (10, 80, 70)
    assert b.report.hold_left == 30
    assert events.names == ["admitted", "admitted", "finished", "finished"]


def test_other_processes_see_it_within_a_second(gateway):
    with guard("a", budget=80) as run:
        gateway.drain(70)
        for _ in range(70):
            run.record(1)
        assert until(lambda: held("a") == 10, 1.5)
        run.record(-5)
        assert not until(lambda: held("a") != 10, 1.2)  # a refund does not make it grow


@pytest.mark.parametrize("how", ["argument", "variable", "source"])
def test_it_can_be_turned_off(gateway, monkeypatch, how):
    options = {}
    if how == "argument":
        options = {"shrink": False}
    elif how == "variable":
        monkeypatch.setenv("CREDITGUARD_SHRINK", "off")
    else:
        monkeypatch.setattr("creditguard.sources.apimall.ApiMall.debits_at_once", False)
    with guard("a", budget=80, **options) as run:
        gateway.drain(70)
        run.record(70)
        with pytest.raises(InsufficientCredits), guard("b", budget=30):
            pass
    assert run.report.hold_left == 80


def test_an_account_that_lags_is_found_out_and_protects_itself(gateway, events):
    gateway.lag(500)
    with guard("first", budget=50) as run:
        gateway.drain(40)
        run.record(40)
    assert run.report.drift == -40
    assert events.last("lagging").levelname == "WARNING"
    with guard("second", budget=50) as run:
        run.record(20)
        assert not until(lambda: held("second") != 50, 1.2)
    gateway.lag(0)
    with guard("third", budget=30, settle=0.05) as run:
        gateway.drain(10)
        run.record(10)
        run.settled()
    assert events.last("lagging").levelname == "INFO"
    with guard("fourth", budget=30) as run:
        gateway.drain(10)
        run.record(10)
        assert until(lambda: held("fourth") == 20)


def test_a_top_up_makes_no_account_lag(gateway, events):
    """One that a reading shows; a smaller one, spent again before the next reading, looks like debits that are shown late."""
    with guard("first", budget=50) as run:
        gateway.drain(40)
        run.record(40)
        gateway.top_up(500)
    assert (run.report.balance_delta, run.report.drift) == (-460, -500)
    assert "lagging" not in events.names
    with guard("second", budget=50) as run:
        gateway.drain(20)
        run.record(20)
        assert until(lambda: held("second") == 30)


def test_the_watch_finds_it_out_while_the_job_runs(gateway, events):
    gateway.lag(500)
    with guard("first", budget=50, watch=0.05, min_interval=0.05) as run:
        gateway.drain(40)
        run.record(10)
        assert until(lambda: "lagging" in events.names)
        run.record(30)
        assert not until(lambda: held("first") != 40, 1.2), "from then on nothing shrinks"
    assert events.names.count("lagging") == 1


MARK = Mark(started=1)


def meter_at(balance, rises_to=None, after=MARK):
    """A run that records 30 before a reading begins, and 20 more before it ends; 100 were on the account at its admission."""
    plan = Plan("run", "job", "pool", "source", Decimal(80), watch=1.0)
    meter = Meter(plan)
    meter.begin(Admission(plan, 0.0, Balance(Decimal(100), "credits", datetime.now(timezone.utc)), Mark()))
    meter.record(Decimal(30))
    if rises_to:
        meter.observe(Decimal(balance), after, 1.0)
    meter.about_to_look()
    meter.record(Decimal(20))
    meter.observe(Decimal(rises_to or balance), after, 2.0)
    return meter


def test_what_is_recorded_while_the_watch_reads_need_not_be_in_the_balance():
    assert meter_at(70).lags() is None
    assert meter_at(71).lags() == (29, 30)


def test_a_top_up_or_another_run_explains_a_balance_that_has_not_fallen():
    assert meter_at(60, rises_to=90).lags() is None
    assert meter_at(71, after=Mark(started=2)).lags() is None
    assert meter_at(71, after=None).lags() is None


def test_an_extension_is_admitted_or_refused_and_then_nothing_has_changed(gateway, events):
    with guard("a", budget=50) as run, guard("b", budget=30):
        run.extend(20)
        assert (run.budget, held("a")) == (70, 70)
        with pytest.raises(InsufficientCredits) as refused:
            run.extend(21)
        assert (refused.value.needs, refused.value.has, refused.value.run_id) == (21, 20, run.id)
        assert (run.budget, held("a")) == (70, 70)
        gateway.drain(60)
        run.record(60)
    assert (run.report.budget, run.report.over_budget, run.report.hold_left) == (70, False, 10)
    assert "extended" in events.names


def test_a_task_asks_for_more(gateway):
    async def main():
        async with guard("a", budget=50) as run:
            await run.aextend(20)
            return run

    assert asyncio.run(main()).report.budget == 70


def test_what_is_over_or_nonsense_is_not_extended(gateway):
    with guard("a", budget=50) as run:
        for nonsense in (-1, "many", float("nan"), True):
            with pytest.raises(ConfigurationError, match=r"extend\(\)"):
                run.extend(nonsense)
    with pytest.raises(RuntimeError, match="not under way"):
        run.extend(10)


def test_what_is_recorded_after_the_end_changes_nothing(gateway):
    with guard("a", budget=50) as run:
        run.record(12)
    run.record(5)
    assert (run.recorded, run.report.credits_recorded) == (12, 12)


@pytest.mark.parametrize("verb", ["record", "extend"])
@pytest.mark.parametrize("nonsense", ["nan", "1e400", "", "１２", "1_000", "0x10", 10**30, None, float("-inf"), True])
def test_nonsense_names_the_verb_and_changes_nothing(gateway, verb, nonsense):
    with guard("a", budget=50) as run, pytest.raises(ConfigurationError) as refused:
        getattr(run, verb)(nonsense)
    assert str(refused.value).startswith(f"{verb}() must be ")
    assert (run.recorded, run.budget, run.report.hold_left) == (None, 50, 50)


def test_no_budget_grows_beyond_the_largest_amount(gateway):
    with guard("a", budget=50, on_short="warn") as run:
        with pytest.raises(ConfigurationError, match="the budget with it must be at most 1000000000000 credits"):
            run.extend(10**12)
        run.extend(10)
    assert run.report.budget == 60


def test_a_hold_that_somebody_released_stays_released(gateway):
    ledger = open_ledger(os.environ["CREDITGUARD_LEDGER"])
    with guard("a", budget=50) as run:
        ledger.release(run.id)
        run.record(20)
        assert not until(lambda: ledger.mark(run.account).admitted != ledger.mark(run.account).released, 1.2)
        with pytest.raises(LeaseLost, match="no hold any more"):
            run.extend(5)
    totals = ledger.mark(run.account)
    assert (totals.admitted, totals.released, totals.started, totals.ended) == (50 * 10**6, 50 * 10**6, 1, 1)
    assert (run.report.budget, run.report.credits_recorded) == (50, 20)


def test_without_a_ledger_the_balance_alone_decides(gateway):
    with guard("a", budget=50, ledger="none") as run:
        run.extend(20)
        assert run.budget == 70
        with pytest.raises(InsufficientCredits):
            run.extend(200)
    assert run.report.hold_left is None


def test_a_guard_waits_for_room_and_takes_it_the_moment_that_it_is_there(gateway, events):
    started, waited = threading.Event(), []

    def second():
        before = time.monotonic()
        started.set()
        with guard("second", budget=80, wait=20, min_interval=0.1):
            waited.append(time.monotonic() - before)

    thread = threading.Thread(target=second)
    with guard("first", budget=80):
        thread.start()
        started.wait(5)
        assert until(lambda: "waiting" in events.names)
        time.sleep(0.3)
        assert not waited
    thread.join(20)
    assert waited
    assert [name for name in events.names if name == "waiting"] == ["waiting"]


def test_it_is_refused_when_the_time_is_up(gateway, events):
    before = time.monotonic()
    with pytest.raises(InsufficientCredits), guard("too much", budget=500, wait=0.5, min_interval=0.1):
        pass
    assert 0.5 <= time.monotonic() - before < 5
    assert events.names == ["waiting", "refused"]


def test_a_task_waits_and_can_be_cancelled(gateway):
    async def second():
        async with guard("second", budget=80, wait=20, min_interval=0.1):
            pass

    async def main():
        with guard("first", budget=80):
            await asyncio.wait_for(second(), 0.3)

    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        asyncio.run(main())
    assert until(lambda: held("second") is None)
