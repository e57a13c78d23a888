"""Amounts: what is taken, what is refused, and that a host's decimal context cannot bend them."""

from __future__ import annotations

import decimal
import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditguard import ConfigurationError
from creditguard.rules.amounts import LARGEST, from_micro, rounded, to_credits, to_json, to_micro, whole
from creditguard.rules.values import Plan


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (0, "0"),
        (500, "500"),
        ("500", "500"),
        (" 12.50 ", "12.50"),
        ("1e3", "1000"),
        (".5", "0.5"),
        (0.1, "0.1"),
        (Decimal("0.0125"), "0.0125"),
        (-0.0, "0"),
        (Decimal("-0"), "0"),
        (10**12, "1000000000000"),
    ],
)
def test_numbers_are_taken_exactly(given_value, expected):
    assert to_credits(given_value) == Decimal(expected)
    assert not to_credits(given_value).is_signed()


@pytest.mark.parametrize(
    "wrong",
    [
        -1, "-0.5", math.nan, math.inf, -math.inf, "NaN", "inf", True, False, "12x", "", " ", "1_000", "１２", None, [], b"5", 1j,
        Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), 10**12 + 1, 10**5000, "1e999", "1e99999999999", "0x10", "1,5", "--5",
    ],
    ids=lambda wrong: type(wrong).__name__,
)  # fmt: skip
def test_what_is_no_budget_is_refused_by_name(wrong):
    with pytest.raises(ConfigurationError) as caught:
        to_credits(wrong, "--budget")
    assert str(caught.value).startswith("--budget must ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 150
    assert caught.value.setting == "--budget"


def test_keep_may_be_negative():
    assert to_credits("-5", "keep", negative=True) == -5


@given(st.decimals(min_value=-LARGEST, max_value=LARGEST, places=6))
def test_micro_credits_are_exact_both_ways(amount):
    assert from_micro(to_micro(amount, up=True)) == amount
    assert to_micro(amount, up=True) == to_micro(amount, up=False)


@given(st.decimals(min_value=0, max_value=10**6, allow_nan=False, allow_infinity=False))
def test_rounding_is_never_in_the_jobs_favour(amount):
    assert from_micro(to_micro(amount, up=False)) <= amount <= from_micro(to_micro(amount, up=True))


def test_float_dust_is_rounded_off_budgets():
    assert rounded(to_credits(0.1 * 3)) == Decimal("0.3")


@pytest.mark.parametrize("precision", [1, 3, 5])
def test_a_hosts_decimal_context_changes_nothing(precision):
    with decimal.localcontext() as context:
        context.prec = precision
        assert to_micro(Decimal("123456.789012"), up=True) == 123456789012
        assert from_micro(123456789012) == Decimal("123456.789012")
        assert rounded(Decimal("123456.7890124")) == Decimal("123456.789012")
        assert whole(Decimal("123456.000")) == 123456
        assert to_json(Decimal("123456.000")) == 123456


def test_json_amounts_are_integers_when_whole():
    assert (
        json.dumps([to_json(Decimal(text)) for text in ("80", "80.00", "8E+1", "0.1", "-2.5")])
        == "[80, 80, 80, 0.1, -2.5]"
    )
    assert to_json(None) is None


def test_a_plans_hold_rounds_its_budget_up():
    plan = Plan("r", "job", "acct", "src", Decimal("0.0000005"))
    assert plan.hold().amount == 1
