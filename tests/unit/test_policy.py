"""The rules of admission and consumption, as arithmetic."""

from __future__ import annotations

import asyncio
import decimal
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditguard import policy
from creditguard.models import Balance, Mark, Plan

WHEN = datetime(2026, 1, 1, tzinfo=timezone.utc)
credits_ = st.decimals(min_value=-(10**6), max_value=10**6, places=6)
budgets = st.decimals(min_value=0, max_value=10**6, places=6)


def plan(budget, keep=0):
    return Plan("r", "job", "acct", "src", Decimal(budget), keep=Decimal(keep))


def balance(amount):
    return Balance(Decimal(amount), "credits", WHEN)


@given(credits_, st.integers(0, 10**12), credits_, budgets)
def test_short_is_exactly_headroom_below_budget(amount, held, keep, budget):
    verdict = policy.decide(plan(budget, keep), balance(amount), held)
    assert verdict.headroom == amount - Decimal(held) / 10**6 - keep
    assert verdict.short == (verdict.headroom < budget)
    assert verdict.shortfall == max(budget - verdict.headroom, 0)


def test_a_hosts_decimal_context_changes_no_decision():
    with decimal.localcontext() as context:
        context.prec = 2
        verdict = policy.decide(plan("123455"), balance("123456"), 2_000_000)
        used = policy.usage(Decimal(5), Decimal(123456), Decimal(123450), None, 0)
    assert verdict.headroom == 123454
    assert verdict.shortfall == 1
    assert used.delta == 6


def test_an_empty_batch_fits_an_empty_account_but_not_an_overdrawn_one():
    assert not policy.decide(plan(0), balance(0), 0).short
    assert policy.decide(plan(0), balance(-1), 0).short
    assert not policy.decide(plan(5, keep=-10), balance(-3), 0).short


@pytest.mark.parametrize(
    ("before", "after", "recorded", "overlaps", "expected"),
    [
        (120, 100, None, 0, (20, 20, None, "account_delta", False)),
        (120, 20, None, 0, (100, 100, None, "account_delta", True)),
        (120, 70, None, 0, (50, 50, None, "account_delta", False)),
        (120, 100, None, 1, (20, 20, None, "shared_account_delta", False)),
        (120, 20, None, 1, (100, 100, None, "shared_account_delta", None)),
        (120, 100, None, None, (20, 20, None, "shared_account_delta", False)),
        (120, 620, None, 0, (-500, None, None, "unknown", None)),
        (None, 100, None, 0, (None, None, None, "unknown", None)),
        (120, None, None, 0, (None, None, None, "unknown", None)),
        (120, 100, 18, 0, (20, 18, 2, "recorded", False)),
        (120, 620, 18, 0, (-500, 18, -518, "recorded", False)),
        (120, None, 51, 3, (None, 51, None, "recorded", True)),
        (120, 120, 0, 0, (0, 0, 0, "recorded", False)),
    ],
)
def test_what_was_consumed_and_how_sure_that_is(before, after, recorded, overlaps, expected):
    amounts = [None if value is None else Decimal(value) for value in (before, after, recorded)]
    used = policy.usage(Decimal(50), *amounts, overlaps)
    assert (used.delta, used.consumed, used.drift, used.basis, used.over_budget) == expected


@given(credits_, credits_, st.one_of(st.none(), st.integers(0, 5)))
def test_consumption_is_never_clamped_to_zero(before, after, overlaps):
    used = policy.usage(Decimal(50), before, after, None, overlaps)
    if after > before:
        assert used.consumed is None
        assert used.basis == "unknown"
    else:
        assert used.consumed == before - after


@given(st.integers(0, 50), st.integers(0, 50), st.data())
def test_overlapping_runs_are_counted_from_two_marks(ended, live, data):
    """Others that were live at the first mark, and others that started until the second; not the run itself."""
    started_since = data.draw(st.integers(0, 50))
    ended_since = data.draw(st.integers(0, live + started_since))
    before = Mark(started=ended + live, ended=ended)
    after = Mark(started=before.started + 1 + started_since, ended=ended + ended_since)
    assert policy.overlapping(before, after) == live + started_since


def test_overlapping_runs_are_unknown_without_both_marks():
    assert policy.overlapping(None, Mark()) is None
    assert policy.overlapping(Mark(), None) is None


class Cancelled(BaseException):
    """As trio's."""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "succeeded"),
        (SystemExit(), "succeeded"),
        (SystemExit(0), "succeeded"),
        (SystemExit(3), "failed"),
        (SystemExit("message"), "failed"),
        (ValueError(), "failed"),
        (BaseException(), "failed"),
        (KeyboardInterrupt(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (Cancelled(), "cancelled"),
    ],
)
def test_outcome_by_exception(error, outcome):
    assert policy.outcome_of(error) == outcome
