"""Holders that are killed, stopped, slow or asleep: who keeps a hold, and who loses it when."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from freezegun import freeze_time
from ledger_world import Agent, AnyLedger, Backend, in_balance

from creditguard.process.identity import this_process
from creditguard.rules.values import Hold, Mark

Start = Callable[..., Agent]

pytestmark = pytest.mark.usefixtures("balanced")


def admitted(ledger: AnyLedger, run: str = "mine", amount: int = 80) -> bool:
    """As a run is admitted: refused once, it looks for the dead and asks again."""
    hold = Hold(run, "a", amount, "job")
    for _ in range(2):
        if ledger.reserve(hold, this_process(), available=120, mark=ledger.mark("a")).admitted:
            return True
        ledger.sweep("a")
    return False


def test_whoever_comes_after_a_killed_holder_is_admitted_at_once(
    backend: Backend, ledger: AnyLedger, agents: Start
) -> None:
    for attempt in range(3):
        agent = agents(backend.url)
        assert agent.ask("reserve", run=f"theirs-{attempt}", amount=80, available=120)
        assert not admitted(ledger, f"mine-{attempt}")
        agent.kill()
        start = time.monotonic()
        assert admitted(ledger, f"mine-{attempt}")
        assert time.monotonic() - start < 10  # and not as long as a lease
        ledger.release(f"mine-{attempt}")
    mark = ledger.mark("a")
    assert (mark.admitted, mark.released) == (480, 480)


def test_a_killed_child_frees_its_holds_before_its_parent_reaps_it(
    backend: Backend, ledger: AnyLedger, agents: Start
) -> None:
    agent = agents(backend.url)
    agent.ask("reserve", run="theirs", amount=80)
    agent.kill(reap=False)
    time.sleep(0.2)
    assert admitted(ledger)


def test_a_stopped_process_keeps_its_hold_for_its_lease_and_is_told_when_it_lost_it(
    backend: Backend, ledger: AnyLedger, agents: Start
) -> None:
    agent = agents(backend.url, "1.5")
    agent.ask("reserve", run="theirs", amount=80)
    agent.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    while time.monotonic() - stopped < 0.8:
        assert not admitted(ledger)
        time.sleep(0.05)
    time.sleep(1.0)
    assert admitted(ledger)
    agent.signal(signal.SIGCONT)
    assert agent.ask("renew") == ["theirs"]
    assert not agent.ask("release", run="theirs")


def test_a_stopped_process_that_nobody_noticed_keeps_its_hold_and_is_told(
    backend: Backend, ledger: AnyLedger, agents: Start
) -> None:
    agent = agents(backend.url, "0.5")
    agent.ask("reserve", run="theirs", amount=80)
    agent.signal(signal.SIGSTOP)
    time.sleep(0.7)
    agent.signal(signal.SIGCONT)
    assert agent.ask("renew") == ["theirs"]
    assert not admitted(ledger)
    assert agent.ask("release", run="theirs")


def test_a_holder_that_renews_outlasts_any_number_of_leases(backend: Backend, ledger: AnyLedger, agents: Start) -> None:
    agent = agents(backend.url, "0.8")
    agent.ask("reserve", run="theirs", amount=80)
    agent.ask("renew_always", every=0.1)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        assert not admitted(ledger)
        time.sleep(0.05)
    assert agent.ask("renew") == []


def test_ten_minutes_under_a_frozen_clock_take_no_hold_away(backend: Backend, ledger: AnyLedger, agents: Start) -> None:
    """Neither the holder's frozen clock nor the asker's is the ledger's."""
    agent = agents(backend.url)
    agent.ask("freeze")
    agent.ask("reserve", run="theirs", amount=80)
    agent.ask("tick", seconds=600)
    assert not admitted(ledger)
    with freeze_time("2035-06-01") as frozen:
        for _ in range(3):
            assert not admitted(ledger)
            frozen.tick(600)
        assert not ledger.reserve(Hold("other", "a", 41, "job"), this_process(), available=120, mark=None).admitted
    assert agent.ask("renew") == []
    assert agent.ask("sweep") == 0


def test_history_under_a_frozen_clock_is_dated_by_the_ledger_and_kept(ledger: AnyLedger) -> None:
    ledger.settle("before", "a", {"n": 0})
    with freeze_time("2035-06-01"):
        for number in range(1, 70):
            ledger.settle(str(number), "a", {"n": number})
    reports = ledger.history(limit=100)
    assert len(reports) == 70
    assert not any(str(report["finished_at"]).startswith("2035") for report in reports)


def test_a_process_killed_in_the_middle_of_a_verb_leaves_nothing_behind(
    backend: Backend, ledger: AnyLedger, agents: Start
) -> None:
    """At any instant: the verbs come in a stream, and the kill comes when it comes."""
    ledger.mark("a")
    for attempt in range(6):
        agent = agents(backend.url)
        for number in range(200):
            agent.tell("reserve", run=f"{attempt}-{number}", amount=1)
            agent.tell("release", run=f"{attempt}-{number}")
        time.sleep(0.02 * attempt)
        agent.kill()
        assert in_balance(backend.url)
        time.sleep(0.02)  # a server may just be doing what the dead one asked for
        assert len(ledger.sweep("a")) <= 1
    mark = ledger.mark("a")
    assert mark == Mark(mark.admitted, mark.admitted, mark.admitted, mark.admitted)


def test_what_ended_cleanly_leaves_nothing_to_sweep(backend: Backend, ledger: AnyLedger, agents: Start) -> None:
    agent = agents(backend.url)
    agent.ask("reserve", run="theirs", amount=80)
    agent.ask("release", run="theirs")
    agent.ask("close")
    agent.kill()
    assert len(ledger.sweep("a")) == 0
    assert admitted(ledger)
