"""What a flow may ask of the world, as values.

A flow is a generator: it yields an effect and is sent the outcome, or is thrown the exception that performing it raised.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from creditguard.rules.events import Event
from creditguard.rules.report import Report
from creditguard.rules.values import Hold, Mark, Reading

T = TypeVar("T")


class Now(NamedTuple):
    """Monotonic seconds, a float."""


class Sleep(NamedTuple):
    seconds: float


class Read(NamedTuple):
    """Mark the ledger (if `marked`), then read the balance: a Reading."""

    marked: bool


class Recent(NamedTuple):
    """A Reading that another process published within `max_age` seconds, or whether it is this one's turn to read."""

    account: str
    max_age: float
    claim: float


class Publish(NamedTuple):
    account: str
    reading: Reading


class TakeMark(NamedTuple):
    """The account's Mark."""

    account: str


class Reserve(NamedTuple):
    """Take the hold, if it fits: a Grant."""

    hold: Hold
    available: int | None
    mark: Mark | None


class Extend(NamedTuple):
    """Add `by` micro-credits to the run's hold, if they fit: a Grant."""

    run_id: str
    by: int
    available: int | None
    mark: Mark | None


class SetLagging(NamedTuple):
    account: str
    lagging: bool


class Sweep(NamedTuple):
    """Free the holds of dead owners: a sequence of LiveHold."""

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
