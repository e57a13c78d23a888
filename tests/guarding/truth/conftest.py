"""A gateway whose balance is hard to read, and runs that read it often."""

from __future__ import annotations

import time

import pytest

from creditguard.sandbox import Gateway

INTERVAL = 0.02
WATCH = 0.05


@pytest.fixture
def gateway(credit_gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    monkeypatch.setenv("CREDITGUARD_MIN_INTERVAL", str(INTERVAL))
    return credit_gateway


@pytest.fixture
def submit(gateway):
    """Submit a task, as a job does; what it cost."""

    def ask(cost: int = 8) -> int:
        gateway._account.submit("flux", cost)
        return cost

    return ask


def certain(report) -> bool:
    """What a reader may take for the truth."""
    return report.basis in {"account_delta", "recorded"} and report.settled


def until(condition, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False
