"""Who waits longest gets its turn, however steady the crowd of smaller ones; without the rule it never would.

Counted in what happens, not in seconds: whenever the one that waits reads the balance, the crowd makes one step.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from creditguard import InsufficientCredits, guard
from creditguard.ledgers import open_ledger
from creditguard.rules.values import Balance

pytestmark = [pytest.mark.stress, pytest.mark.timeout(120)]

STEPS = 300


class Pool:
    """A pool of 100 credits from which nobody spends."""

    name, unit, account, debits_at_once = "pool", "credits", "pool", True

    def read(self, timeout):
        return Balance(Decimal(100), "credits", datetime.now(timezone.utc), None, self.name)


class Watched(Pool):
    """The same, where each reading lasts until it may end."""

    def __init__(self):
        self.begun, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def read(self, timeout):
        self.begun.release()
        self.may_end.acquire(timeout=timeout)
        return super().read(timeout)


class Barging:
    """The broken rule: nobody has a place."""

    def __init__(self, ledger):
        self.ledger = ledger

    def __getattr__(self, name):
        return getattr(self.ledger, name)

    def reserve(self, hold, owner, **asked):
        return self.ledger.reserve(hold._replace(waits=0.0), owner, **asked)


class Crowd:
    """Jobs of 20 credits. In each step one comes, without waiting, and then the one that came four steps before goes."""

    def __init__(self, ledger):
        self.ledger, self.jobs, self.admitted, self.steps = ledger, deque(), 0, 0

    def step(self):
        self.steps += 1
        job = ExitStack()
        try:
            job.enter_context(guard("small", budget=20, source=Pool(), account="pool", ledger=self.ledger))
            self.admitted += 1
        except InsufficientCredits:
            pass
        self.jobs.append(job)
        if len(self.jobs) > 4:
            self.jobs.popleft().close()


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request, tmp_path):
    if request.param == "sqlite":
        return open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    return open_ledger(request.getfixturevalue("postgres_url"))


def among_the_crowd(ledger):
    """How many of the crowd are admitted while one waits for 60 credits, and after how many steps it had its turn."""
    crowd, source, turn = Crowd(ledger), Watched(), []

    def wait_for_room():
        with guard("big", budget=60, source=source, account="pool", ledger=ledger, min_interval=0, wait=100):
            turn.append(crowd.steps)

    for _ in range(8):
        crowd.step()
    crowd.admitted = crowd.steps = 0
    waiter = threading.Thread(target=wait_for_room)
    waiter.start()
    for _ in range(STEPS):
        assert source.begun.acquire(timeout=30)
        if turn:
            break
        crowd.step()
        source.may_end.release()
    admitted = crowd.admitted
    while crowd.jobs:
        crowd.jobs.popleft().close()
    source.may_end.release(1000)
    waiter.join(30)
    assert turn, "there is room in the end"
    return admitted, turn[0]


def test_who_waits_longest_gets_its_turn(ledger):
    admitted, steps = among_the_crowd(ledger)
    print(f"\n{admitted} of the crowd came first, in {steps} steps")
    assert admitted < 10
    assert steps < 20


def test_and_never_would_without_the_rule(ledger):
    admitted, steps = among_the_crowd(Barging(ledger))
    assert admitted > STEPS * 0.9
    assert steps >= STEPS
