"""The figures of the page: what is exact stays apart from what is a bound, and what is not known is not made up."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from past_runs import refusal, report

from creditguard.errors import ConfigurationError
from creditguard.report import summary
from creditguard.report.figures import AccountLine, BalancePoint, burn, collect, consumed, suggestion

NOON = datetime(2026, 11, 25, 12).astimezone()


def tiles(history):
    return {tile.name: tile for tile in summary.tiles(history)}


def account(*balances, hours=24.0):
    """An account that was read every so many hours, the last time at noon."""
    count = len(balances)
    readings = [BalancePoint(NOON - timedelta(hours=hours * (count - 1 - n)), each) for n, each in enumerate(balances)]
    found = AccountLine("ours", readings)
    found.follow()
    return found


def test_exact_figures_bounds_and_unknown_ones_are_summed_apart(past, history):
    past.file(
        report("a", 40),
        report("a", 30, basis="recorded"),
        report("b", 20, basis="shared_account_delta"),
        report("b", None, basis="unknown", consumed_at_least=5),
        report("b", None, basis="unknown", outcome="abandoned"),
        refusal("c", 10),
    )
    found = history()
    assert [run.sure for run in found.runs] == ["exact", "exact", "at most", "at least", "unknown", "refused"]
    used = consumed(run for run in found.runs if run.outcome != "refused")
    assert (used.exact, used.more_at_most, used.least) == (70, 20, 75)
    assert (used.exact_runs, used.bounded_runs, used.unknown_runs) == (2, 1, 2)
    tile = tiles(found)["Consumed"]
    assert tile.value == "≥ 75"
    assert "inexact" in tile.marks
    assert tile.more == "70 for certain in 2 runs; at most 20 more in 1 beside others; 2 not known"
    assert tiles(found)["Runs"].more == "4 succeeded, 1 abandoned"


def test_all_that_is_exact_is_said_to_be(past, history):
    past.file(report("a", 40), report("a", 90, budget=80))
    found = tiles(history())
    assert (found["Consumed"].value, found["Consumed"].more) == ("130", "exact, in 2 runs")
    assert (found["Over budget"].value, found["Refused"].value, found["Refused"].marks) == ("1", "0", ())


def test_what_a_damaged_ledger_made_of_a_report_is_not_known():
    damaged = report("a", 1) | {
        "credits_consumed": "many",
        "budget": True,
        "balance_after": float("nan"),
        "labels": [1],
    }
    found = collect([damaged | {"finished_at": "2026-11-25T12:00:00+00:00"}], NOON, NOON)
    (run,) = found.runs
    assert (run.consumed, run.budget, run.after, run.labels) == (None, None, None, {})
    assert tiles(found)["Consumed"].value == "≥ 0"


def test_top_ups_are_rises_of_the_balance_and_are_not_burnt():
    found = account(100, 60, 1060, 1020)
    assert [(rise.by, rise.to) for rise in found.rises] == [(1000, 1060)]
    assert sum(found.lost.values()) == 80


def test_a_refund_is_taken_off_what_was_lost():
    found = account(1000, 900, 905, 800)
    assert found.rises == []
    assert sum(found.lost.values()) == 200


def test_readings_in_a_slightly_wrong_order_are_no_top_up():
    found = account(1000, 800, 900, 800, hours=1 / 3600)
    assert found.rises == []
    assert sum(found.lost.values()) == 200


def test_an_even_burn_leaves_no_doubt_and_an_uneven_one_does():
    even = burn(account(*range(2000, 900, -100)), NOON)
    assert even is not None
    assert (even.a_day, even.until_empty) == (pytest.approx(100), pytest.approx(10))
    assert (even.soonest, even.latest) == (pytest.approx(10, abs=0.01), pytest.approx(10, abs=0.01))
    uneven = burn(account(2000, 1950, 1750, 1700, 1500, 1450, 1250, 1200, 1000), NOON)
    assert uneven is not None
    assert uneven.soonest < 7 < uneven.until_empty < 10 < uneven.latest


def test_few_days_say_no_range_and_less_than_a_day_nothing():
    few = burn(account(300, 200, 100), NOON)
    assert few is not None
    assert (few.until_empty, few.soonest, few.latest) == (pytest.approx(1), None, None)
    assert burn(account(300, 200, hours=1), NOON) is None
    assert burn(AccountLine("ours"), NOON) is None


def test_an_account_that_loses_nothing_does_not_empty():
    still = burn(account(300, 300, 300), NOON)
    assert still is not None
    assert (still.a_day, still.until_empty) == (0, None)


def test_the_account_that_is_empty_first_is_named(past, history):
    for days_ago, left in ((8, 1000), (4, 600), (0, 200)):
        one = report("a", 50, balance_before=left, balance_after=left - 50) | {"account": "small"}
        two = report("a", 5, balance_before=9000 + left, balance_after=8995 + left) | {"account": "large"}
        past.file(one, two, days_ago=days_ago)
    found = history()
    assert tiles(found)["Balance now"].value == "9,345"
    assert "small, the first" in tiles(found)["Days until empty"].more
    assert {row[0] for row in summary.accounts(found)} == {"small", "large"}


def test_the_suggestion_is_that_of_the_command(past, history):
    past.file(*(report("a", spent) for spent in (60, 62, 66, 70, 75)), report("a", 500, basis="shared_account_delta"))
    assert suggestion("a", history().runs).budget == 75


def test_units_are_not_added_up(past, history):
    past.file(report("a", 1), report("b", 1) | {"unit": "EUR"})
    with pytest.raises(ConfigurationError, match=r"several units \(EUR, credits\): choose one account by --account"):
        history()


def test_nothing_at_all(history):
    found = history()
    assert summary.sentences(found) == ["No run ended in this time."]
