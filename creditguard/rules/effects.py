"""What a flow may ask of the world, as values, and one typed helper for each.

A flow is a generator: it yields an effect and is sent the outcome, or is thrown the exception that performing it raised.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from creditguard.rules.events import Event
from creditguard.rules.report import Report
from creditguard.rules.values import Grant, Hold, LiveHold, Mark, Reading

T = TypeVar("T")


class Now(NamedTuple):
    """Monotonic seconds."""


class Sleep(NamedTuple):
    seconds: float


class Read(NamedTuple):
    """Mark the ledger (if `marked`), then read the balance."""

    marked: bool


class Recent(NamedTuple):
    """A reading that another process published within `max_age` seconds, or whether it is this one's turn to read."""

    account: str
    max_age: float
    claim: float


class Publish(NamedTuple):
    account: str
    reading: Reading


class TakeMark(NamedTuple):
    account: str


class Reserve(NamedTuple):
    hold: Hold
    available: int | None
    mark: Mark | None


class Extend(NamedTuple):
    """Add `by` micro-credits to the run's hold."""

    run_id: str
    by: int
    available: int | None
    mark: Mark | None


class SetLagging(NamedTuple):
    account: str
    lagging: bool


class Sweep(NamedTuple):
    account: str


class Usual(NamedTuple):
    """What past runs of the job on the account usually took, in words; None if too few are known."""

    account: str
    job: str


class Release(NamedTuple):
    run_id: str


class Settle(NamedTuple):
    """Release the run's hold, if there is one, and file its report."""

    report: Report


class Deliver(NamedTuple):
    """What the caller waits for is there; what is still to be done concerns it no more."""

    outcome: object


class Emit(NamedTuple):
    event: Event


class CutShort(Exception):
    """Nobody waits for the outcome any more: give back what was taken, and end."""


LedgerEffect: TypeAlias = (
    "TakeMark | Reserve | Extend | SetLagging | Sweep | Usual | Release | Settle | Recent | Publish"
)
Effect: TypeAlias = "Now | Sleep | Read | Emit | Deliver | LedgerEffect"
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


def extend_hold(run_id: str, by: int, *, available: int | None, mark: Mark | None) -> Flow[Grant]:
    grant: Grant = yield Extend(run_id, by, available, mark)
    return grant


def set_lagging(account: str, *, lagging: bool) -> Flow[None]:
    yield SetLagging(account, lagging)


def sweep(account: str) -> Flow[Sequence[LiveHold]]:
    freed: Sequence[LiveHold] = yield Sweep(account)
    return freed


def usual(account: str, job: str) -> Flow[str | None]:
    said: str | None = yield Usual(account, job)
    return said


def release(run_id: str) -> Flow[None]:
    yield Release(run_id)


def settle(report: Report) -> Flow[None]:
    yield Settle(report)


def emit(event: Event) -> Flow[None]:
    yield Emit(event)


def deliver(outcome: object) -> Flow[None]:
    yield Deliver(outcome)
