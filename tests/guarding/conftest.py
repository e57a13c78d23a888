"""What the tests of the guard share: a gateway, and the events that a run logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from creditguard.sandbox import Gateway


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

    def last(self, name: str) -> logging.LogRecord:
        return self.all(name)[-1]


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
def gateway(credit_gateway: Gateway) -> Gateway:
    return credit_gateway
