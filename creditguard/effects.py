"""What a flow may ask of the world, as values, and one typed helper for each.

A flow is a generator: it yields an effect and is sent the outcome, or is thrown the exception that performing it raised.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from creditguard.events import Event
from creditguard.models import Grant, Hold, Mark, Reading, Report

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Now:
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Read:
    """Mark the ledger (if `marked`), then read the balance. A `max_age` above 0 accepts what another process read lately."""

    account: str
    marked: bool
    max_age: float = 0.0


@dataclass(frozen=True, slots=True)
class TakeMark:
    account: str


@dataclass(frozen=True, slots=True)
class Reserve:
    hold: Hold
    available: int | None
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class Sweep:
    account: str


@dataclass(frozen=True, slots=True)
class Release:
    run_id: str


@dataclass(frozen=True, slots=True)
class Settle:
    report: Report


@dataclass(frozen=True, slots=True)
class Emit:
    event: Event


LedgerEffect: TypeAlias = "TakeMark | Reserve | Sweep | Release | Settle"
Effect: TypeAlias = "Now | Sleep | Read | Emit | LedgerEffect"
Flow: TypeAlias = Generator[Effect, Any, T]


def now() -> Flow[float]:
    seconds: float = yield Now()
    return seconds


def sleep(seconds: float) -> Flow[None]:
    yield Sleep(seconds)


def read(account: str, *, marked: bool, max_age: float = 0.0) -> Flow[Reading]:
    reading: Reading = yield Read(account, marked, max_age)
    return reading


def take_mark(account: str) -> Flow[Mark]:
    mark: Mark = yield TakeMark(account)
    return mark


def reserve(hold: Hold, *, available: int | None, mark: Mark | None) -> Flow[Grant]:
    grant: Grant = yield Reserve(hold, available, mark)
    return grant


def sweep(account: str) -> Flow[int]:
    freed: int = yield Sweep(account)
    return freed


def release(run_id: str) -> Flow[None]:
    yield Release(run_id)


def settle(report: Report) -> Flow[None]:
    yield Settle(report)


def emit(event: Event) -> Flow[None]:
    yield Emit(event)
