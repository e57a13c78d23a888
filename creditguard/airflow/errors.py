"""The errors of creditguard that Airflow must not retry: the same errors, and AirflowFailException as well.

A retry cannot help when credits are short, the key is rejected or a setting is wrong, and after an overrun it would spend even
more. What passes by itself (a gateway or a ledger that cannot be reached) is left to the retries of the task.
"""

from __future__ import annotations

from creditguard.airflow.sdk import AirflowFailException
from creditguard.errors import (
    AuthenticationError,
    BudgetExceeded,
    ConfigurationError,
    CreditGuardError,
    InsufficientCredits,
)


class NotEnoughCredits(InsufficientCredits, AirflowFailException):
    """InsufficientCredits that fails the task without a retry."""


class KeyRejected(AuthenticationError, AirflowFailException):
    """AuthenticationError that fails the task without a retry."""


class OverBudget(BudgetExceeded, AirflowFailException):
    """BudgetExceeded that fails the task without a retry."""


class Misconfigured(ConfigurationError, AirflowFailException):
    """ConfigurationError that fails the task without a retry."""


_FINAL: dict[type[CreditGuardError], type[CreditGuardError]] = {
    InsufficientCredits: NotEnoughCredits,
    AuthenticationError: KeyRejected,
    BudgetExceeded: OverBudget,
    ConfigurationError: Misconfigured,
}


def final(error: CreditGuardError) -> CreditGuardError:
    """The error as one that is not retried, if a retry cannot help; else the error itself."""
    kind = _FINAL.get(type(error))
    return kind(*error.args) if kind else error
