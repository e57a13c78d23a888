"""What the parts of creditguard ask of each other: a source to read, a ledger to hold, a sink for events.

The rules (policy, flow) and the drivers know these protocols and no implementation. Anything that fits may be handed to
`guard(source=..., ledger=...)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        """The balance now, within `timeout` seconds in all. Raises BalanceUnavailable, and nothing else, when it cannot."""
        ...


@runtime_checkable
class AsyncBalanceSource(BalanceSource, Protocol):
    """A source that can be read without blocking the event loop. One that cannot is read in a worker thread."""

    async def aread(self, timeout: float) -> Balance:
        """As `read`."""
        ...


class Ledger(Protocol):
    """Holds against accounts, for every process that shares the ledger.

    Each verb is atomic, and idempotent by the run id that the caller chose, so a call whose answer was lost may be repeated
    or undone. Amounts are integers of micro-credits. Per account the ledger keeps the two totals of `Mark`, whose difference
    is the sum of the live holds after every verb, whatever process was killed at whatever instant. Time is the ledger's own:
    no caller's clock decides when a lease ends. Every verb raises LedgerUnavailable, and nothing else, when it cannot answer.
    Verbs may be called from any thread, and from a forked child.
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
        """Take the hold iff `available − (admitted − mark.released) ≥ hold.amount`, and renew the owner's lease.

        `available` is the balance less what must be kept. None takes the hold whatever else is held (a job that starts in
        warn mode: others must see it). A hold that was taken already is admitted again without being counted twice.
        """
        ...

    def renew(self, owner: Owner, run_ids: Iterable[str]) -> frozenset[str]:
        """Extend the owner's lease by `ttl`, and say which of its runs have lost their hold or had let their lease end."""
        ...

    def settle(self, run_id: str, account: str, report: Mapping[str, object]) -> None:
        """Release the run's hold, if it still has one, and file its report as history."""
        ...

    def release(self, run_id: str) -> bool:
        """Release the run's hold without a report; whether there was one."""
        ...

    def sweep(self, account: str) -> int:
        """Release the holds of owners that are dead (seen from this host) or whose lease has ended; how many."""
        ...

    def holds(self, account: str | None = None) -> Sequence[LiveHold]:
        """The live holds, oldest first, of one account or of all."""
        ...

    def history(
        self, *, account: str | None = None, job: str | None = None, limit: int = 20
    ) -> Sequence[Mapping[str, object]]:
        """The latest reports, newest first, as they were filed, each with `finished_at` (ISO 8601, UTC)."""
        ...

    def recent(self, account: str, *, max_age: float, claim: float) -> Reading | bool:
        """A reading that some process published within the last `max_age` seconds, else whose turn it is to read: True for
        the caller's (it should read and `publish` within `claim` seconds), False for another process's that is at it."""
        ...

    def publish(self, account: str, reading: Reading) -> None:
        """Lend a reading, with the mark taken before it, to the other processes that ask for `recent` ones."""
        ...

    def close(self) -> None:
        """Give up connections and files. Holds stay."""
        ...


class EventSink(Protocol):
    """Where events go. Must not raise, and must not write to stdout."""

    def emit(self, event: Event) -> None:
        """Pass one event on."""
        ...
