"""The values that the rest of creditguard passes about: amounts, balances, marks, holds, plans and reports. No I/O, no clock.

Amounts are `Decimal` in the API and integers of micro-credits in the ledger. All arithmetic on them goes through `EXACT`, since
the host program may have set a decimal context of its own (a precision of 4 would turn 123456 credits into 123500).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Literal, NamedTuple, TypeAlias

from creditguard.errors import ConfigurationError, CreditGuardError

Amount: TypeAlias = "int | float | str | Decimal"
Label: TypeAlias = "str | int | float | bool"
OnShort: TypeAlias = Literal["abort", "warn"]
OnOverrun: TypeAlias = Literal["warn", "stop"]
Outcome: TypeAlias = Literal["succeeded", "failed", "cancelled", "refused"]
Basis: TypeAlias = Literal["recorded", "account_delta", "shared_account_delta", "unknown"]
SpentBasis: TypeAlias = Literal["recorded", "account_delta", "at_least", "shared_account_delta", "unknown"]
"""How sure a figure of the watch is: as `Basis`, and `at_least`, a lower bound, once the balance has risen."""


class Settle(NamedTuple):
    """How long to wait at exit for the account to catch up: `seconds`, or, if `stable`, until two readings agree, for so
    many seconds at most."""

    seconds: float = 0.0
    stable: bool = False


EXACT = Context(prec=60)
ZERO = Decimal(0)
MICRO = Decimal(1_000_000)
LARGEST = Decimal(10**12)
"""The largest amount: a million million credits, which fit into 64 bits as micro-credits (ledgers keep their sums in more)."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)


def to_credits(value: Amount, name: str = "budget", *, negative: bool = False) -> Decimal:
    """The amount as a Decimal. A float is taken by its repr, so that 0.1 is a tenth.

    `name` is the flag, variable or field that the value came from, for the error. Raises ConfigurationError for a bool, NaN,
    an infinity, text that is not a plain number, an amount beyond a million million, and (unless `negative`) one below 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ConfigurationError(f"{name} must be a number of credits, not {_shown(value)}", name)
    if isinstance(value, (str, float)):
        text = value.strip() if isinstance(value, str) else repr(value)
        if not _NUMBER.fullmatch(text):
            raise ConfigurationError(
                f"{name} must be a number of credits such as 500 or 0.25, not {_shown(value)}", name
            )
        amount = Decimal(text)
    elif isinstance(value, int):
        # Bounds first: turning an enormous int into a Decimal takes seconds.
        amount = Decimal(value) if value.bit_length() < 128 else LARGEST * 2
    else:
        amount = Decimal(value)
    if not amount.is_finite():
        raise ConfigurationError(f"{name} must be a finite number of credits, not {_shown(value)}", name)
    if amount.copy_abs() > LARGEST:
        raise ConfigurationError(f"{name} must be at most {LARGEST:f} credits", name)
    if amount < 0 and not negative:
        raise ConfigurationError(f"{name} must not be negative, not {_shown(value)}", name)
    return amount.copy_abs() if amount.is_zero() else amount  # no "-0" in a report


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def to_micro(amount: Decimal, *, up: bool) -> int:
    """The amount in millionths, rounded up (what a job may spend) or down (what an account has): never in the job's favour."""
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    return int(EXACT.multiply(amount, MICRO).to_integral_value(rounding, EXACT))


def rounded(amount: Decimal) -> Decimal:
    """The amount to the nearest millionth, the ledger's grain: 0.1 * 3 is 0.3 again, not 0.30000000000000004."""
    return whole(EXACT.quantize(amount, Decimal("0.000001")))


def from_micro(micro: int) -> Decimal:
    """The amount that a ledger's integer stands for."""
    return whole(EXACT.divide(Decimal(micro), MICRO))


def whole(amount: Decimal) -> Decimal:
    """The same amount, without a fraction where it has none: 80 rather than 80.0 or 8E+1."""
    integral = amount.to_integral_value(context=EXACT)
    return EXACT.quantize(integral, Decimal(1)) if amount == integral else amount


def to_json(amount: Decimal | None) -> int | float | None:
    """The amount as a JSON number: an integer when whole."""
    if amount is None:
        return None
    integral = int(amount)
    return integral if integral == amount else float(amount)


@dataclass(frozen=True, slots=True)
class Balance:
    """What a source said is left: `amount` in `unit`, at `read_at` (UTC), under the source's own `request_id`."""

    amount: Decimal
    unit: str
    read_at: datetime
    request_id: str | None = None
    source: str = ""


class Mark(NamedTuple):
    """Where an account's totals stood at one instant; they only ever grow.

    `admitted` and `released` are micro-credits: their difference is what live runs hold. `started` and `ended` count runs:
    their difference is the number of live runs.
    """

    admitted: int = 0
    released: int = 0
    started: int = 0
    ended: int = 0


class Reading(NamedTuple):
    """A balance, with the mark that the ledger showed *before* the balance was asked for (None: no ledger was asked)."""

    balance: Balance
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a lease belongs to. `id` is new for each process, forks included; the rest lets another process on
    the same host see whether it still lives: `host` and `boot` say which running machine (and process namespace) can look,
    `pid` and `started` (the kernel's start time of that pid) whom to look for.
    """

    id: str
    host: str
    boot: str
    pid: int
    started: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The promise of `amount` micro-credits of `account` to one run. `id` is the run's id, chosen before it is written."""

    id: str
    account: str
    amount: int
    job: str
    labels: Mapping[str, Label] = field(default_factory=dict)


class Grant(NamedTuple):
    """A ledger's answer to a reservation: whether the hold was taken, and what others held (micro-credits, counted from the
    mark that came with the request: what has been released since the balance was asked for still counts)."""

    admitted: bool
    held_by_others: int


class LiveHold(NamedTuple):
    """A row of `creditguard holds`: a hold, who owns it, since when (UTC), and until when its lease runs."""

    hold: Hold
    owner: Owner
    since: datetime
    lease_ends: datetime


@dataclass(frozen=True, slots=True)
class Plan:
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
    watch: float = 0.0
    """Seconds between readings during the run; 0 for none."""
    thresholds: tuple[Decimal, ...] = ()
    """Shares of the budget that are worth an event each, in rising order."""
    on_overrun: OnOverrun = "warn"
    stop_below: Decimal | None = None
    """Stop the run when less than this is left on the account, whoever spent it."""
    labels: Mapping[str, Label] = field(default_factory=dict)

    @property
    def hold(self) -> Hold:
        """The hold that this plan asks of the ledger."""
        return Hold(self.run_id, self.account, to_micro(self.budget, up=True), self.job, self.labels)

    @property
    def may_stop(self) -> bool:
        """Whether there is anything that the run may be stopped for."""
        return self.on_overrun == "stop" or self.stop_below is not None


@dataclass(frozen=True, slots=True)
class Admission:
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
    refusal: CreditGuardError | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a run consumed, and how sure that is. The same fields, in the same words, as the `creditguard.finished` event.

    Amounts are in `unit`; `duration_s` is in seconds. `None` means that it is not known, never 0.
    """

    run_id: str
    job: str
    account: str
    source: str
    unit: str
    budget: Decimal
    keep: Decimal
    balance_before: Decimal | None
    held_by_others: Decimal | None
    headroom: Decimal | None
    shortfall: Decimal | None
    request_id_before: str | None
    labels: Mapping[str, Label]
    balance_after: Decimal | None
    balance_delta: Decimal | None
    """Before − after: negative when the balance rose."""
    credits_consumed: Decimal | None
    credits_recorded: Decimal | None
    drift: Decimal | None
    """Delta − recorded, where both are known."""
    basis: Basis
    over_budget: bool | None
    settled: bool
    """The last reading holds all debits and refunds of the run, as far as waiting, or the job's own word, can show."""
    overlapping_runs: int | None
    outcome: Outcome
    duration_s: float
    request_id_after: str | None
    lease_lost: bool = False
    pending: int | None = None
    """Tasks that the job said were still open when it ended: they may yet be debited or refunded."""
    consumed_at_least: Decimal | None = None
    """Where `basis` is unknown because the balance rose: what was debited at least, refunds not taken off."""
    stopped: bool = False
    """The guard told the run to stop. `outcome` says how the job took it."""

    def to_dict(self) -> dict[str, object]:
        """The report as plain JSON values, in the words of the event schema."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        for name, value in plain.items():
            if type(value) is Decimal:
                plain[name] = to_json(value)
        plain["labels"] = dict(self.labels)
        return plain
