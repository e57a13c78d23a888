"""What the parts of creditguard ask of each other: a source to read, a ledger to hold, a sink for events.

The rules and the engine know these protocols and no implementation. Anything that fits may be handed to
`guard(source=..., ledger=...)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from creditguard.rules.events import Event
from creditguard.rules.values import Balance, Grant, Hold, LiveHold, Mark, Owner, Reading


@runtime_checkable
class BalanceSource(Protocol):
    """Where a balance is read. `name` and `unit` appear in events; `account` tells one prepaid pool from another without
    giving a key away (a digest will do)."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def account(self) -> str: ...

    def read(self, timeout: float) -> Balance:
        """The balance now, within `timeout` seconds in all. Raises BalanceUnavailable, and nothing else, when it cannot.

        It is called in threads of creditguard's own, several at a time. A source whose balance shows a debit before the job
        can know of it says so by an attribute `debits_at_once = True`: then a hold shrinks by what its run records.
        """
        ...


class Ledger(Protocol):
    """Holds against accounts, for every process that shares the ledger.

    Each verb is atomic, and idempotent by the run id that the caller chose, so a call whose answer was lost may be repeated
    or undone. Amounts are integers of micro-credits. Per account the ledger keeps the two totals of `Mark`, whose difference
    is the sum of the live holds after every verb, whatever process was killed at whatever instant. Time is the ledger's own:
    no caller's clock decides when a lease ends. Every verb raises LedgerUnavailable, and nothing else, when it cannot answer.

    The verbs of one object are called one at a time, from whatever thread, and nothing interrupts them. A forked child may
    go on with the object; its parent should `close` it between two verbs before the fork (see `ledgers.sqlite`).
    """

    @property
    def name(self) -> str:
        """What events call it: `sqlite`, `postgresql`, `none`; never with a password."""
        ...

    @property
    def ttl(self) -> float | None:
        """Seconds for which a lease lasts after each renewal; None when holds need no lease."""
        ...

    def mark(self, account: str) -> Mark:
        """The account's totals now. To be asked *before* the balance that is to be compared with it."""
        ...

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        """Take the hold iff `available − (admitted − mark.released) − kept ≥ hold.amount`, and renew the owner's lease.

        `available` is the balance less what must be kept. None takes the hold whatever else is held (a job that starts in
        warn mode: others must see it). A hold that was taken already is admitted again without being counted twice. One
        that was released or settled before it was taken is not admitted: the run is over, and its reservation came late.

        A run that waits and is refused gets a place at the end of the account's queue, or keeps the one that it has, for
        `hold.waits` seconds. `kept` is what is free, up to the amount of the first run in the queue before this one that only
        needs the others to end (its amount was not above its own `available`, nor is it above this one's). A place goes when its
        run is admitted, released or settled.
        """
        ...

    def extend(self, run_id: str, by: int, *, available: int | None, mark: Mark | None) -> Grant:
        """Add `by` to the run's hold iff `available − (admitted − mark.released) ≥ by`, where the run's own hold counts as
        held. `Grant.missing` says that the run has no hold; nothing has changed then, nor when it is not admitted."""
        ...

    def shrink(self, run_id: str, to: int, *, budget: int | None = None) -> None:
        """Make the run's hold the lesser of what it is and `to`, and release the difference. Nothing happens to a run without
        a hold, nor on an account that is marked as lagging; nor, given the `budget` that `to` was worked out from, to a run that
        another process has extended since."""
        ...

    def renew(self, owner: Owner, run_ids: Iterable[str]) -> frozenset[str]:
        """Extend the owner's lease by `ttl`, and say which of its runs have lost their hold or had let their lease end."""
        ...

    def settle(self, run_id: str, account: str, report: Mapping[str, object]) -> None:
        """Release the run's hold, if it has one, and file its report as history. A refused run's report is filed likewise."""
        ...

    def release(self, run_id: str) -> bool:
        """Release the run's hold without a report; whether there was one. Its id is remembered for an hour: see `reserve`."""
        ...

    def sweep(self, account: str) -> Sequence[LiveHold]:
        """Release the holds of owners that are dead (seen from this host) or whose lease has ended, and file each run as
        abandoned. The answer is what this very call freed: of many sweepers, one gets to report a run."""
        ...

    def set_lagging(self, account: str, lagging: bool) -> None:
        """Mark the account as one whose balance lags behind what runs record, or take the mark away."""
        ...

    def holds(self, account: str | None = None, *, limit: int = 1000) -> Sequence[LiveHold]:
        """The live holds, oldest first, of one account or of all; the first `limit` of them."""
        ...

    def history(
        self, *, account: str | None = None, job: str | None = None, since: datetime | None = None, limit: int = 20
    ) -> Sequence[Mapping[str, object]]:
        """The latest reports, newest first, as they were filed, each with `finished_at` (ISO 8601, UTC)."""
        ...

    def runs(
        self, *, since: datetime | None = None, job: str | None = None, account: str | None = None
    ) -> Iterator[Mapping[str, object]]:
        """The same reports, all of them, oldest first, read a few hundred at a time. Other verbs may be called between two."""
        ...

    def recent(self, account: str, *, max_age: float, claim: float) -> Reading | bool:
        """A reading that some process published within the last `max_age` seconds, else whose turn it is to read: True for
        the caller's (it should read and `publish` within `claim` seconds), False for another process's that is at it."""
        ...

    def publish(self, account: str, reading: Reading) -> None:
        """Lend a reading, with the mark taken before it, to the other processes that ask for `recent` ones."""
        ...

    def close(self) -> None:
        """Give up connections and files. Holds stay, and the next verb opens anew."""
        ...


class EventSink(Protocol):
    """Where events go. Must not raise, and must not write to stdout."""

    def emit(self, event: Event) -> None:
        """Pass one event on."""
        ...
