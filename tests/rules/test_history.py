"""What past runs tell: totals, percentiles, a suggested budget, and what a job usually takes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditguard.rules import history
from creditguard.rules.history import PastRun, grouped, job_of, number, past, percentile


def ran(consumed, basis="account_delta", job="nightly", **more):
    return {"job": job, "outcome": "succeeded", "credits_consumed": consumed, "basis": basis, "headroom": 500, **more}


def refused(headroom):
    return {"job": "nightly", "outcome": "refused", "credits_consumed": None, "basis": "unknown", "headroom": headroom}


def totals(reports):
    return history.totals(map(past, reports))


def suggest(job, reports):
    return history.suggest(job, map(past, reports))


def usually(reports):
    return history.usually(map(past, reports))


def decimals(*amounts):
    return [Decimal(str(amount)) for amount in amounts]


TWELVE = [ran(consumed) for consumed in (60, 61, 79, 62, 63, 75, 64, 65, 66, 67, 68, 69)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, Decimal(5)),
        (0.1, Decimal("0.1")),
        (0.30000000000000004, Decimal("0.3")),
        (-3, Decimal(-3)),
        *((bad, None) for bad in (None, True, "5", [], {}, float("nan"), float("inf"), 1e13, 10**400)),
    ],
)
def test_a_filed_amount_is_a_number_or_nothing(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize(
    ("basis", "expected"),
    [("recorded", 7), ("account_delta", 7), ("shared_account_delta", None), ("unknown", None), (None, None)],
)
def test_only_a_sure_figure_counts(basis, expected):
    assert past(ran(7, basis)).consumed == expected
    assert past(ran(None, "account_delta")).consumed is None


def test_of_a_damaged_report_nothing_is_known():
    assert past({}) == PastRun("", "", None, None, over_budget=False)
    wrong = past({"job": 5, "outcome": [], "basis": {}, "credits_consumed": "9", "headroom": "x", "over_budget": "yes"})
    assert wrong == PastRun("5", "", None, None, over_budget=False)


def test_a_percentile_is_a_figure_that_some_run_had():
    ten = decimals(*range(1, 11))
    assert [percentile(ten, share) for share in (0, 1, 10, 11, 50, 90, 95, 100)] == [1, 1, 1, 2, 5, 9, 10, 10]
    assert percentile(decimals(4), 50) == 4


@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(1, 100))
def test_so_many_percent_do_not_exceed_it_and_no_lesser_figure_will_do(amounts, share):
    ordered = sorted(map(Decimal, amounts))
    found = percentile(ordered, share)
    assert sum(each <= found for each in ordered) * 100 >= share * len(ordered)
    assert sum(each < found for each in ordered) * 100 < share * len(ordered)


def test_totals():
    found = totals(
        [
            *(ran(consumed) for consumed in (0.1, 0.2, 3)),
            ran(9, over_budget=True),
            ran(80, "shared_account_delta", over_budget=None),
            ran(None, "unknown", outcome="abandoned"),
            refused(10),
            refused(20),
        ]
    )
    assert found == (6, 2, Decimal("12.3"), 1, Decimal("3.075"), Decimal("0.2"), Decimal(9), 1, 2)


def test_totals_of_nothing_are_not_known_rather_than_0():
    assert totals([]) == (0, 0, 0, 0, None, None, None, 0, 0)
    assert totals([ran(None, "unknown")]) == (1, 0, 0, 0, None, None, None, 0, 1)


def test_runs_are_grouped_in_the_order_of_their_key():
    runs = [ran(1, job="b"), ran(2, job="a"), ran(3, job="b"), ran(4, job=None)]
    assert grouped(runs, job_of) == {
        "": [past(runs[3])], "a": [past(runs[1])], "b": [past(runs[0]), past(runs[2])],
    }  # fmt: skip
    assert list(grouped(runs, job_of)) == ["", "a", "b"]


def test_the_suggested_budget_is_the_95th_percentile_rounded_up():
    found = suggest("nightly", [ran(consumed) for consumed in range(401, 501)])
    assert found[:8] == (
        "nightly", 100, 450, 490, 495, 500, 500, "95 % of 100 runs took 495 or less, rounded up",
    )  # fmt: skip
    assert (found.refused, found.over) == (0, 0)


@pytest.mark.parametrize(
    ("p95", "budget"),
    [(0, "0"), (7, "7"), (7.25, "7.3"), (72.1, "73"), (99.5, "100"), (101, "110"), (0.0123, "0.013"), (10**12, "1000000000000"), (-4, "0")],
)  # fmt: skip
def test_it_is_rounded_up_to_two_figures(p95, budget):
    found = suggest("nightly", [ran(p95)] * 5)
    assert f"{found.budget:f}" == budget
    assert found.reason.endswith(", rounded up") is (found.budget > Decimal(str(p95)))


def test_a_suggestion_says_what_share_would_have_been_refused_or_over():
    runs = [
        *(ran(10, headroom=headroom) for headroom in (9, 10, 11, None)),
        *[ran(10)] * 34,
        ran(40),
        ran(50, headroom=3),
    ]
    unknown = [ran(None, "unknown"), ran(99, "shared_account_delta")]
    found = suggest("nightly", [*runs, *unknown, refused(9), refused(10)])
    assert (found.runs, found.budget, found.max) == (40, 10, 50)
    assert (found.refused, found.over) == (3 / 42, 1 / 42)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([], "no runs have a sure figure, 5 are needed"),
        ([ran(3)], "1 run has a sure figure, 5 are needed"),
        ([ran(3)] * 4 + [ran(9, "shared_account_delta")] * 9, "4 runs have a sure figure, 5 are needed"),
    ],
)
def test_too_few_runs_suggest_nothing(runs, reason):
    found = suggest("nightly", runs)
    assert (found.budget, found.refused, found.over, found.reason) == (None, None, None, reason)
    assert found.max == (3 if found.runs else None)
    assert usually(runs) is None


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (TWELVE, "usually 61-75, at most 79 in 12 runs"),
        ([ran(80)] * 5, "usually 80, at most 80 in 5 runs"),
        ([ran(12.3456)] * 4 + [ran(1234.5)], "usually 12.3-1235, at most 1235 in 5 runs"),
        ([ran(0)] * 6, "usually 0, at most 0 in 6 runs"),
    ],
)
def test_what_a_job_usually_takes(runs, said):
    assert usually(runs) == said


@given(st.lists(st.floats(0, 1e12) | st.integers(0, 10**12), min_size=history.ENOUGH))
def test_a_suggestion_covers_95_of_100_runs_and_is_at_most_a_tenth_more(amounts):
    found = suggest("nightly", [ran(amount) for amount in amounts])
    assert found.budget is not None
    assert found.over <= 0.05
    assert found.p95 <= found.budget <= found.p95 * Decimal("1.1")
