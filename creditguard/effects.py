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
    """Mark the ledger (if `marked`), then read the balance."""

    marked: bool


@dataclass(frozen=True, slots=True)
class Recent:
    """A reading that another process published within `max_age` seconds, or whether it is this one's turn to read."""

    account: str
    max_age: float
    claim: float


@dataclass(frozen=True, slots=True)
class Publish:
    account: str
    reading: Reading


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


LedgerEffect: TypeAlias = "TakeMark | Reserve | Sweep | Release | Settle | Recent | Publish"
Effect: TypeAlias = "Now | Sleep | Read | Emit | LedgerEffect"
Flow: TypeAlias = Generator[Effect, Any, T]


def now() -> Flow[float]:
    seconds: float = yield Now()
    return seconds


def sleep(seconds: float) -> Flow[None]:
    yield Sleep(seconds)


def read(*, marked: bool) -> Flow[Reading]:
    reading: Reading = yield Read(marked)
    return reading


def recent(account: str, *, max_age: float, claim: float) -> Flow[Reading | bool]:
    known: Reading | bool = yield Recent(account, max_age, claim)
    return known


def publish(account: str, reading: Reading) -> Flow[None]:
    yield Publish(account, reading)


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
