"""creditguard: a pre-flight credit guard for batch pipelines.

Read the balance before a job, hold the budget it declares, refuse or warn when it falls short, read the balance again at
exit and log the credits consumed.

    from creditguard import guard

    with guard("nightly-enrich", budget=500) as run:
        ...
    print(run.report.credits_consumed, run.report.basis)

Names are loaded on first use, so that importing this package costs next to nothing: it stands in front of every job, and
schedulers import it again and again while they parse their files.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from creditguard._version import __version__
    from creditguard.errors import (
        AuthenticationError,
        BalanceUnavailable,
        BudgetExceeded,
        ConfigurationError,
        CreditGuardError,
        InsufficientCredits,
        LeaseLost,
        LedgerError,
        LedgerUnavailable,
        RateLimited,
        SourceError,
        UnexpectedResponse,
    )
    from creditguard.guarding.guard import guard
    from creditguard.guarding.run import Run, current_run
    from creditguard.rules.ports import BalanceSource, Ledger
    from creditguard.rules.report import Report
    from creditguard.rules.values import Balance

__all__ = [
    "AuthenticationError",
    "Balance",
    "BalanceSource",
    "BalanceUnavailable",
    "BudgetExceeded",
    "ConfigurationError",
    "CreditGuardError",
    "InsufficientCredits",
    "LeaseLost",
    "Ledger",
    "LedgerError",
    "LedgerUnavailable",
    "RateLimited",
    "Report",
    "Run",
    "SourceError",
    "UnexpectedResponse",
    "__version__",
    "current_run",
    "guard",
]

_HOMES = {
    "__version__": "_version",
    "Balance": "rules.values",
    "BalanceSource": "rules.ports",
    "Ledger": "rules.ports",
    "Report": "rules.report",
    "Run": "guarding.run",
    "current_run": "guarding.run",
    "guard": "guarding.guard",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # cheap: importlib is loaded in every interpreter

    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
