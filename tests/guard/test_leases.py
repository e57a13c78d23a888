"""The leases of a process: what is renewed, and that nothing is called lost which is only on its way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from creditguard import guard
from creditguard.engine.leases import Leases
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.rules.values import Hold


@pytest.fixture
def ledger(tmp_path):
    ledger = SqliteLedger(str(tmp_path / "leases.db"), ttl=0.15)
    yield ledger
    ledger.close()


class Slow:
    """A ledger whose answers take their time to arrive."""

    def __init__(self, ledger, before=0.0, after=0.0):
        self.ledger, self.before, self.after = ledger, before, after
        self.wait = threading.Event().wait

    def __getattr__(self, name):
        return getattr(self.ledger, name)

    def reserve(self, *args, **kwargs):
        self.wait(self.before)
        grant = self.ledger.reserve(*args, **kwargs)
        self.wait(self.after)
        return grant


class Run:
    lost = 0

    def on_lost(self, error):
        self.lost += 1


def test_a_reservation_on_its_way_is_not_taken_for_lost_by_a_renewal(ledger):
    leases, run, other = Leases(Slow(ledger, before=0.4)), Run(), Run()
    leases.when_lost("other", other.on_lost)
    leases.when_lost("slow", run.on_lost)
    assert leases.reserve(Hold("slow", "acct", 1, "job"), available=100, mark=None).admitted
    threading.Event().wait(0.4)
    assert [hold.hold.id for hold in ledger.holds()] == ["slow"]
    assert len(ledger.sweep("acct")) == 0
    assert run.lost == 0
    leases.release("slow")


def test_a_hold_that_was_taken_away_is_told_once(ledger):
    leases, run = Leases(ledger), Run()
    leases.when_lost("taken", run.on_lost)
    leases.reserve(Hold("taken", "acct", 1, "job"), available=100, mark=None)
    ledger.release("taken")
    threading.Event().wait(0.5)
    assert run.lost == 1
    leases.release("taken")


def test_short_runs_in_many_threads_lose_nothing(credit_gateway, tmp_path):
    credit_gateway.set_credits(100_000)
    # Renewed every half second, and never in danger of lapsing for real, however busy the machine.
    ledger = SqliteLedger(str(tmp_path / "crowd.db"), ttl=30)
    ledger.ttl = 1.5
    crowd = guard("crowd", budget=1, ledger=ledger)

    def work(_):
        with crowd as run:
            pass
        return run.lease_lost

    with ThreadPoolExecutor(16) as pool:
        assert not any(pool.map(work, range(600)))
    ledger.close()
