"""The values that the rest of creditguard passes about: balances, marks, holds, plans and admissions. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

from creditguard.errors import CreditGuardError
from creditguard.rules.amounts import ZERO, from_micro, to_micro

Label: TypeAlias = "str | int | float | bool"
NO_LABELS: Mapping[str, Label] = {}
OnShort: TypeAlias = Literal["abort", "warn"]
OnOverrun: TypeAlias = Literal["warn", "stop"]
Outcome: TypeAlias = Literal["succeeded", "failed", "cancelled", "refused"]
Basis: TypeAlias = Literal["recorded", "account_delta", "shared_account_delta", "unknown"]
SpentBasis: TypeAlias = Literal["recorded", "account_delta", "at_least", "shared_account_delta", "unknown"]
"""How sure a figure of the watch is: as `Basis`, and `at_least`, a lower bound, once the balance has risen."""


class SettleTime(NamedTuple):
    """How long to wait at exit for the account to catch up: `seconds`, or, if `stable`, until two readings agree, for so
    many seconds at most."""

    seconds: float = 0.0
    stable: bool = False


class Balance(NamedTuple):
    """What a source said is left: `amount` in `unit`, at `read_at` (UTC), under the source's own `request_id`."""

    amount: Decimal
    unit: str
    read_at: datetime
    request_id: str | None = None
    source: str = ""


class Mark(NamedTuple):
    """Where an account's totals stood at one instant; they only ever grow.

    `admitted` and `released` are micro-credits: their difference is what live runs hold. `started` and `ended` count runs:
    their difference is the number of live runs. `lagging`: the account's balance was seen to be behind what runs recorded,
    so no hold on it shrinks (`Ledger.set_lagging`).
    """

    admitted: int = 0
    released: int = 0
    started: int = 0
    ended: int = 0
    lagging: bool = False


class Reading(NamedTuple):
    """A balance, with the mark that the ledger showed *before* the balance was asked for (None: no ledger was asked)."""

    balance: Balance
    mark: Mark | None = None


class Owner(NamedTuple):
    """The process that a lease belongs to. `id` is new for each process, forks included; the rest lets another process on
    the same host see whether it still lives: `host` and `boot` say which running machine (and process namespace) can look,
    `pid` and `started` (the kernel's start time of that pid) whom to look for.
    """

    id: str
    host: str
    boot: str
    pid: int
    started: str


class Hold(NamedTuple):
    """The promise of `amount` micro-credits of `account` to one run. `id` is the run's id, chosen before it is written.

    `balance` is what was on the account when the run was admitted (micro-credits; None when that is not known): the ledger
    keeps it for the report of a run whose process dies. `waits`: seconds for which the run's place in the queue is kept if it is
    refused; 0 for one that does not wait.
    """

    id: str
    account: str
    amount: int
    job: str
    labels: Mapping[str, Label] = NO_LABELS
    balance: int | None = None
    waits: float = 0.0


class Grant(NamedTuple):
    """A ledger's answer to `reserve` and `extend`: whether the credits were taken, and what was held by others (micro-credits,
    counted from the mark that came with the request: what has been released since the balance was asked for still counts).
    When a reservation is refused, what is kept for a run that has waited longer is counted as held by it.

    After `extend`, `held_by_others` counts the run's own hold too, as the rule does. `missing`: the run has no hold that
    could be extended (it was released, swept, or never taken), which is not a matter of credits.
    """

    admitted: bool
    held_by_others: int
    missing: bool = False


class LiveHold(NamedTuple):
    """A row of `creditguard holds`, or what `Ledger.sweep` freed: a hold, who owns it, since when, and until when its lease
    runs (both UTC). `hold.amount` is what is held now; `budget` is what was admitted in all (micro-credits; None when that is
    not known), so a hold that has shrunk shows what its run has recorded."""

    hold: Hold
    owner: Owner
    since: datetime
    lease_ends: datetime
    budget: int | None = None


class Plan(NamedTuple):
    """What one run asks for, all settled before anything is read."""

    run_id: str
    job: str
    account: str
    source: str
    budget: Decimal
    unit: str = "credits"
    keep: Decimal = ZERO
    on_short: OnShort = "abort"
    on_unreadable: OnShort = "abort"
    ledger_optional: bool = False
    """The ledger is the default that nobody asked for: passed over with an event when it cannot be used."""
    max_age: float = 0.0
    """Seconds for which a balance that another process read may serve the admission; 0 means: read it."""
    settle: float = 0.0
    """Seconds to wait at exit before the last reading."""
    settle_stable: bool = False
    """Read again at exit until two readings agree, for `settle` seconds at most."""
    min_interval: float = 15.0
    """Politeness: seconds between two readings of a run, its first and its last apart."""
    drift_tolerance: Decimal | None = None
    """How far the account and the job's own record may part before it is worth a warning; None for the default."""
    wait: float = 0.0
    """Seconds to wait for room while the run is short; 0: it is refused at once."""
    shrink: bool = False
    """The hold shrinks by what the run records: the source shows a debit before the job can record it."""
    watch: float = 0.0
    """Seconds between readings during the run; 0 for none."""
    thresholds: tuple[Decimal, ...] = ()
    """Shares of the budget that are worth an event each, in rising order."""
    on_overrun: OnOverrun = "warn"
    stop_below: Decimal | None = None
    """Stop the run when less than this is left on the account, whoever spent it."""
    labels: Mapping[str, Label] = NO_LABELS

    def hold(self, balance: int | None = None, waits: float = 0.0) -> Hold:
        """The hold that this plan asks of the ledger."""
        return Hold(self.run_id, self.account, to_micro(self.budget, up=True), self.job, self.labels, balance, waits)

    @property
    def may_stop(self) -> bool:
        """Whether there is anything that the run may be stopped for."""
        return self.on_overrun == "stop" or self.stop_below is not None


class Admission(NamedTuple):
    """What was read and decided before a run: `refusal` is why it may not start, None when it may."""

    plan: Plan
    started: float
    """Monotonic seconds."""
    balance: Balance | None = None
    mark: Mark | None = None
    held_by_others: Decimal | None = None
    headroom: Decimal | None = None
    shortfall: Decimal | None = None
    ledger_failed: bool = False
    """The ledger could not be used, and the run was decided without it."""
    usually: str | None = None
    """What past runs of the job took, in words, for a refusal and for whoever only asks."""
    refusal: CreditGuardError | None = None

    @property
    def others(self) -> int | None:
        """How many live runs hold what is held by others; None unless both were counted at one instant."""
        mark = self.mark
        if mark is None or self.held_by_others != from_micro(mark.admitted - mark.released):
            return None
        return mark.started - mark.ended
