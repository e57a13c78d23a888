"""A gateway whose balance is hard to read, runs that read it often, and the events that they logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from creditguard.sandbox import Gateway

INTERVAL = 0.02
WATCH = 0.05


class Events(logging.Handler):
    """The events, as stdlib logging carries them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "event"):
            self.records.append(record)

    @property
    def names(self) -> list[str]:
        return [record.event.removeprefix("creditguard.") for record in self.records]

    def all(self, name: str) -> list[logging.LogRecord]:
        return [record for record in self.records if record.event == f"creditguard.{name}"]


@pytest.fixture
def events() -> Iterator[Events]:
    logger = logging.getLogger("creditguard")
    handler, level = Events(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


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
