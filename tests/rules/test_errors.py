"""Errors survive pickling and copying, and say one line."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal

import pytest

import creditguard
from creditguard import errors

EXAMPLES = [
    errors.CreditGuardError("something"),
    errors.ConfigurationError("timeout must be a number", "timeout"),
    errors.InsufficientCredits(Decimal(80), Decimal(40), Decimal(40), "credits", "nightly", "acct", Decimal(120), Decimal(80), Decimal(5), "r1", "req_1"),
    errors.InsufficientCredits(Decimal(80), Decimal(40), Decimal(40)),
    errors.BudgetExceeded(Decimal(90), Decimal(80), "credits", "nightly", "r1"),
    errors.BudgetExceeded(Decimal(90), Decimal(80)),
    errors.BudgetExceeded(None, Decimal(80), "credits", "nightly", "r1", Decimal(4), Decimal(5)),
    errors.BudgetExceeded(None, Decimal(80)),
    errors.BalanceUnavailable("no answer", "req_1", 500, 3.0),
    errors.AuthenticationError("key rejected", "req_1", 401),
    errors.RateLimited("wait", None, 429, 30.0),
    errors.SourceError("down"),
    errors.UnexpectedResponse("not JSON"),
    errors.LedgerError("broken"),
    errors.LedgerUnavailable("no such file", "sqlite"),
    errors.LeaseLost("lapsed", "sqlite", "r1"),
    errors.InsufficientCredits(Decimal(80), Decimal(40), Decimal(40), balance=Decimal(90), held=Decimal(50)),
    errors.InsufficientCredits(Decimal(80), Decimal(40), Decimal(40), usually="usually 60-75, at most 79 in 12 runs"),
]  # fmt: skip


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_and_copying(error):
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), type(error)(*error.args)):
        assert type(twin) is type(error)
        assert twin.args == error.args
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
    assert "\n" not in str(error)


def test_the_tree():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), creditguard.CreditGuardError)
    assert issubclass(errors.ConfigurationError, ValueError)
    for kind in (errors.AuthenticationError, errors.RateLimited, errors.SourceError, errors.UnexpectedResponse):
        assert issubclass(kind, errors.BalanceUnavailable)
    assert issubclass(errors.LeaseLost, errors.LedgerError)


def test_a_refusal_says_what_was_needed_and_what_was_there():
    assert str(EXAMPLES[2]) == (
        "nightly: needs 80 credits, 40 are free (120 on the account, 80 held by others, 5 to keep)"
    )
    assert str(EXAMPLES[3]) == "needs 80 credits, 40 are free"
    bare = errors.InsufficientCredits(Decimal(80), Decimal(40), Decimal(40), balance=Decimal(40))
    assert str(bare) == "needs 80 credits, 40 are free (40 on the account)"
    assert str(EXAMPLES[-2]) == "needs 80 credits, 40 are free (90 on the account, 50 held, this run's own included)"
    assert str(EXAMPLES[-1]) == "needs 80 credits, 40 are free (usually 60-75, at most 79 in 12 runs)"
    assert str(EXAMPLES[8]) == "no answer (request req_1)"
    assert str(EXAMPLES[4]) == "nightly: spent 90 credits of a budget of 80"
    assert str(EXAMPLES[6]) == "nightly: 4 credits are left on the account, fewer than 5"
    assert str(EXAMPLES[7]) == "spent more credits of a budget of 80"
    assert str(EXAMPLES[14]) == "no such file (ledger sqlite)"
