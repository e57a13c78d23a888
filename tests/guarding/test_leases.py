"""The leases of a process: what is renewed, and that nothing is called lost which is only on its way."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from creditguard import guard
from creditguard.errors import LedgerUnavailable
from creditguard.ledgers.sqlite import SqliteLedger


@pytest.fixture
def ledger(tmp_path):
    ledger = SqliteLedger(str(tmp_path / "leases.db"), ttl=1.5)
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


@pytest.mark.parametrize("slow", [{"before": 0.4}, {"after": 0.4}])
def test_a_reservation_on_its_way_is_not_taken_for_lost_by_a_renewal(ledger, slow, credit_gateway):
    slowly = Slow(ledger, **slow)
    with guard("other", budget=1, ledger=slowly), guard("slow", budget=1, ledger=slowly) as run:
        threading.Event().wait(0.8)
        assert [hold.hold.job for hold in ledger.holds()] == ["other", "slow"]
        assert not ledger.sweep(run.account)
        assert not run.lease_lost


def test_a_hold_that_was_taken_away_is_told_once(ledger, credit_gateway, events):
    with guard("taken", budget=1, ledger=ledger) as run:
        ledger.release(run.id)
        threading.Event().wait(1.0)
        assert run.lease_lost
    assert events.names == ["admitted", "lease_lost", "finished"]
    assert run.report.hold_left is None


def test_what_could_not_be_given_back_is_given_back_later(ledger, credit_gateway, events):
    """The ledger fails as the run ends; other holds of the process live on meanwhile."""

    class Failing(Slow):
        fails = 2

        def settle(self, *args):
            if self.fails:
                self.fails -= 1
                raise LedgerUnavailable("is busy", "sqlite")
            self.ledger.settle(*args)

    failing = Failing(ledger)
    with guard("other", budget=1, ledger=failing) as other:
        with guard("ends", budget=1, ledger=failing):
            pass
        assert [hold.hold.job for hold in ledger.holds()] == ["other", "ends"]
        deadline = time.monotonic() + 10
        while len(ledger.holds()) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [hold.hold.job for hold in ledger.holds()] == ["other"]
        assert not other.lease_lost
    assert [report["job"] for report in ledger.history()] == ["other", "ends"]
    assert "ledger_unavailable" in events.names


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
