"""Every error that creditguard raises.

    CreditGuardError
    ├── ConfigurationError        a setting, argument or key that cannot be used (also a ValueError)
    ├── InsufficientCredits       short before the job: nothing ran
    ├── BudgetExceeded            mid-run: the job spent more than it declared, or the account runs low
    ├── BalanceUnavailable        the balance could not be read
    │   ├── AuthenticationError   401, 403
    │   ├── RateLimited           429
    │   ├── SourceError           404, 5xx, network, timeout
    │   └── UnexpectedResponse    an answer that was not understood
    └── LedgerError
        ├── LedgerUnavailable     the ledger cannot be reached, read or written
        └── LeaseLost             the hold lapsed while the job ran

All of them survive pickling (task queues and process pools send exceptions about): `args` are the arguments of `__init__`,
and the message is made from them on demand. None of them ever holds a key, a header or a query string.
"""

from __future__ import annotations

from decimal import Decimal

__all__ = [
    "AuthenticationError",
    "BalanceUnavailable",
    "BudgetExceeded",
    "ConfigurationError",
    "CreditGuardError",
    "InsufficientCredits",
    "LeaseLost",
    "LedgerError",
    "LedgerUnavailable",
    "RateLimited",
    "SourceError",
    "UnexpectedResponse",
]


class CreditGuardError(Exception):
    """The base of all errors of creditguard."""


class ConfigurationError(CreditGuardError, ValueError):
    """A setting, an argument or a key cannot be used.

    `message` is one line that names the flag, variable or field and says what would be right; `setting` is that name alone.
    """

    def __init__(self, message: str, setting: str | None = None) -> None:
        super().__init__(message, setting)
        self.message = message
        self.setting = setting

    def __str__(self) -> str:
        return self.message


class InsufficientCredits(CreditGuardError):
    """The account cannot carry the budget, so the job was not started.

    Attributes, all in `unit`: `needs` is the declared budget; `has` is the headroom, that is the balance less what other
    runs hold and less `keep` (below 0 if more is held than there is; the message says 0 then); `shortfall` is `needs - has`;
    `balance` is what the source said.
    `usually` says in words what past runs of the job took, if enough are known. Of a run that is under way and was refused
    more, `needs` is how much more; `held` is then what all runs hold, itself included, and `held_by_others` None.
    `others` is the number of live runs that hold `held_by_others`, where that was counted.
    """

    def __init__(
        self,
        needs: Decimal,
        has: Decimal,
        shortfall: Decimal,
        unit: str = "credits",
        job: str | None = None,
        account: str | None = None,
        balance: Decimal | None = None,
        held_by_others: Decimal | None = None,
        keep: Decimal | None = None,
        run_id: str | None = None,
        request_id: str | None = None,
        usually: str | None = None,
        held: Decimal | None = None,
        others: int | None = None,
    ) -> None:
        known = needs, has, shortfall, unit, job, account, balance, held_by_others, keep, run_id, request_id, usually
        super().__init__(*known, held, others)
        self.needs = needs
        self.has = has
        self.shortfall = shortfall
        self.unit = unit
        self.job = job
        self.account = account
        self.balance = balance
        self.held_by_others = held_by_others
        self.keep = keep
        self.run_id = run_id
        self.request_id = request_id
        self.usually = usually
        self.held = held
        self.others = others

    def __str__(self) -> str:
        job = f"{self.job}: " if self.job else ""
        usually = f" ({self.usually})" if self.usually else ""
        there = self.balance, self.held_by_others, self.keep, self.held, self.others
        return f"{job}{shortage(self.needs, self.has, self.unit, *there)}{usually}"


def shortage(
    needs: Decimal,
    has: Decimal,
    unit: str = "credits",
    balance: Decimal | None = None,
    held_by_others: Decimal | None = None,
    keep: Decimal | None = None,
    held: Decimal | None = None,
    others: int | None = None,
) -> str:
    """`needs 30 credits, 0 are free (50 on the account, 80 held by 2 others)`: being short, in words that people can use."""
    free = max(has, Decimal(0))
    parts = [] if balance is None else [f"{balance:f} on the account"]
    if held_by_others:
        whom = "1 other" if others == 1 else f"{others} others" if others else "others"
        parts.append(f"{held_by_others:f} held by {whom}")
    if held:
        parts.append(f"{held:f} held, this run's own included")
    if keep:
        parts.append(f"{keep:f} to keep" if keep > 0 else f"{-keep:f} overdraft")
    why = f" ({', '.join(parts)})" if parts else ""
    unit = unit.removesuffix("s") if needs == 1 and unit == "credits" else unit
    return f"needs {needs:f} {unit}, {free:f} {'is' if free == 1 else 'are'} free{why}"


class BudgetExceeded(CreditGuardError):
    """The run is stopped: it has spent more than the budget that it declared (`on_overrun="stop"`), or less is left on the
    account than it was told to leave (`stop_below`).

    Attributes, all in `unit`: `spent` (None when that is not known) of `budget`; and in the second case `balance`, what the
    account had, and `stop_below`.
    """

    def __init__(
        self,
        spent: Decimal | None,
        budget: Decimal,
        unit: str = "credits",
        job: str | None = None,
        run_id: str | None = None,
        balance: Decimal | None = None,
        stop_below: Decimal | None = None,
    ) -> None:
        super().__init__(spent, budget, unit, job, run_id, balance, stop_below)
        self.spent = spent
        self.budget = budget
        self.unit = unit
        self.job = job
        self.run_id = run_id
        self.balance = balance
        self.stop_below = stop_below

    def __str__(self) -> str:
        job = f"{self.job}: " if self.job else ""
        if self.balance is not None and self.stop_below is not None:
            return f"{job}{self.balance:f} {self.unit} are left on the account, fewer than {self.stop_below:f}"
        spent = "more" if self.spent is None else f"{self.spent:f}"
        return f"{job}spent {spent} {self.unit} of a budget of {self.budget:f}"


class BalanceUnavailable(CreditGuardError):
    """The balance could not be read.

    `request_id` is the source's own id of the request, for its support; `status` the HTTP status, where there was one;
    `retry_after` the seconds after which the source asked to be asked again, where it said so.
    """

    def __init__(
        self,
        message: str,
        request_id: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, request_id, status, retry_after)
        self.message = message
        self.request_id = request_id
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message


class AuthenticationError(BalanceUnavailable):
    """The source refused the key: missing or invalid (401), or no access or not the gateway's host (403)."""


class RateLimited(BalanceUnavailable):
    """The source asked to wait (429), for longer than the reading may take."""


class SourceError(BalanceUnavailable):
    """The source could not be reached or could not answer: 404, 5xx, a network error, a timeout."""


class UnexpectedResponse(BalanceUnavailable):
    """The source answered, but not with a balance that can be trusted. Never read as 0."""


class LedgerError(CreditGuardError):
    """The base of what can go wrong with the ledger. `message` is one line; `ledger` says which, without a password."""

    def __init__(self, message: str, ledger: str | None = None) -> None:
        super().__init__(message, ledger)
        self.message = message
        self.ledger = ledger

    def __str__(self) -> str:
        return f"{self.message} (ledger {self.ledger})" if self.ledger else self.message


class LedgerUnavailable(LedgerError):
    """The ledger cannot be reached, read or written."""


class LeaseLost(LedgerError):
    """The hold of a run lapsed while its job ran, so others may have been admitted against the same credits."""

    def __init__(self, message: str, ledger: str | None = None, run_id: str | None = None) -> None:
        super().__init__(message, ledger)
        self.args: tuple[str | None, ...] = (message, ledger, run_id)
        self.run_id = run_id
