"""The rules of admission and consumption, as arithmetic."""

from __future__ import annotations

import asyncio
import decimal
from datetime import datetime, timezone
from decimal import Decimal

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from creditguard.errors import BudgetExceeded
from creditguard.guarding import hosts
from creditguard.rules.admission import decide
from creditguard.rules.consumption import overlapping, usage
from creditguard.rules.report import drift_tolerance, make_report
from creditguard.rules.settling import (
    Ending,
    Exit,
    agrees_with_record,
    settled_by_readings,
    settled_by_time,
    trend_until_exit,
)
from creditguard.rules.spending import Alarms, Spending, Trend, alarms, reason_to_stop, spent_so_far
from creditguard.rules.values import Admission, Balance, Mark, Plan

WHEN = datetime(2026, 1, 1, tzinfo=timezone.utc)
credits_ = st.decimals(min_value=-(10**6), max_value=10**6, places=6)
budgets = st.decimals(min_value=0, max_value=10**6, places=6)


def plan(budget, keep=0):
    return Plan("r", "job", "acct", "src", Decimal(budget), keep=Decimal(keep))


def balance(amount):
    return Balance(Decimal(amount), "credits", WHEN)


@given(credits_, st.integers(0, 10**12), credits_, budgets)
def test_short_is_exactly_headroom_below_budget(amount, held, keep, budget):
    verdict = decide(plan(budget, keep), balance(amount), held)
    assert verdict.headroom == amount - Decimal(held) / 10**6 - keep
    assert (verdict.shortfall > 0) == (verdict.headroom < budget)
    assert verdict.shortfall == max(budget - verdict.headroom, 0)


def test_a_hosts_decimal_context_changes_no_decision():
    with decimal.localcontext() as context:
        context.prec = 2
        verdict = decide(plan("123455"), balance("123456"), 2_000_000)
        used = usage(Decimal(5), Decimal(123456), Decimal(123450), None, 0)
    assert verdict.headroom == 123454
    assert verdict.shortfall == 1
    assert used.delta == 6


def test_an_empty_batch_fits_an_empty_account_but_not_an_overdrawn_one():
    assert not decide(plan(0), balance(0), 0).shortfall
    assert decide(plan(0), balance(-1), 0).shortfall
    assert not decide(plan(5, keep=-10), balance(-3), 0).shortfall


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
    used = usage(Decimal(50), *amounts, overlaps)
    assert (used.delta, used.consumed, used.drift, used.basis, used.over_budget) == expected


@given(credits_, credits_, st.one_of(st.none(), st.integers(0, 5)))
def test_consumption_is_never_clamped_to_zero(before, after, overlaps):
    used = usage(Decimal(50), before, after, None, overlaps)
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
    assert overlapping(before, after) == live + started_since


def test_overlapping_runs_are_unknown_without_both_marks():
    assert overlapping(None, Mark()) is None
    assert overlapping(Mark(), None) is None


class Cancelled(BaseException):
    pass


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
        (BudgetExceeded(Decimal(2), Decimal(1)), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (Cancelled(), "failed"),  # somebody else's, by the name of trio's
    ],
)
def test_outcome_by_exception(error, outcome):
    assert hosts.outcome_of(error) == outcome


def test_how_frameworks_cancel_is_known_of_those_that_are_loaded():
    async def cancelled_by_trio():
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except BaseException as error:
                return error

    assert hosts.outcome_of(trio.run(cancelled_by_trio)) == "cancelled"


# settling

NOW = plan(80)._replace(settle=60.0)
ADMITTED = Admission(NOW, 0.0, balance(120), Mark())
ENDING = Ending("succeeded", None, 10.0)


def seen(*readings, trend=None):
    found = Exit(trend or Trend.begin(Decimal(120), 0.0))
    for amount, at in readings:
        found.saw(balance(amount), at)
    return found


@pytest.mark.parametrize(
    ("settle", "pending", "amount", "recorded", "settled"),
    [
        (0.0, None, 100, None, False),
        (30.0, None, 100, None, True),
        (0.0, 0, 100, None, True),
        (30.0, 1, 100, None, False),
        (30.0, None, 120, None, False),
        (30.0, None, 120, 0, True),
        (30.0, None, 120, 8, False),
    ],
)
def test_settled_by_time_or_word(settle, pending, amount, recorded, settled):
    admission = ADMITTED._replace(plan=NOW._replace(settle=settle))
    ending = ENDING._replace(pending=pending, recorded=None if recorded is None else Decimal(recorded))
    assert settled_by_time(admission, ending, seen((amount, 11))) is settled


def test_nothing_is_settled_that_was_not_read():
    assert not settled_by_time(ADMITTED, ENDING, Exit())
    assert not settled_by_readings(ADMITTED, ENDING, Exit())
    assert not agrees_with_record(ADMITTED, ENDING._replace(pending=0, recorded=Decimal(0)), Exit())
    unread = ADMITTED._replace(balance=None)
    assert settled_by_time(unread, ENDING, seen((100, 11)))


def test_settled_by_readings_that_agree():
    assert not settled_by_readings(ADMITTED, ENDING, seen((100, 11)))
    assert settled_by_readings(ADMITTED, ENDING, seen((100, 11), (100, 12)))
    assert not settled_by_readings(ADMITTED, ENDING, seen((100, 11), (99, 12)))
    assert not settled_by_readings(ADMITTED, ENDING, seen((120, 11), (120, 12)))
    assert not settled_by_readings(ADMITTED, ENDING._replace(pending=1), seen((100, 11), (100, 12)))


def test_a_pause_at_the_end_must_outlast_those_of_the_run():
    trend = Trend.begin(Decimal(120), 0.0).seen(Decimal(110), 1.0).seen(Decimal(100), 6.0)
    ending = ENDING._replace(trend=trend)
    assert not settled_by_readings(ADMITTED, ending, seen((90, 11), (90, 15), trend=trend))
    assert settled_by_readings(ADMITTED, ending, seen((90, 11), (90, 16), trend=trend))
    long = ending._replace(trend=trend._replace(longest_pause=600.0))
    assert settled_by_readings(ADMITTED, long, seen((90, 11), (90, 71), trend=trend))


def test_a_rise_while_settling_is_not_called_certain():
    found = seen((90, 11), (100, 12), (100, 13))
    found.settled, found.mark = True, Mark(started=1)
    report = make_report(ADMITTED, ENDING, found)
    assert (report.credits_consumed, report.basis, report.settled, report.over_budget) == (
        20,
        "account_delta",
        False,
        None,
    )
    assert make_report(ADMITTED, ENDING._replace(recorded=Decimal(20)), found).settled


def test_the_course_goes_on_from_the_readings_before():
    assert trend_until_exit(ADMITTED._replace(balance=None), ENDING) is None
    assert trend_until_exit(ADMITTED, ENDING) == Trend.begin(Decimal(120), 0.0)
    trend = Trend.begin(Decimal(120), 0.0).seen(Decimal(90), 1.0).seen(Decimal(110), 2.0)
    assert trend_until_exit(ADMITTED, ENDING._replace(trend=trend)) is trend
    found = seen((100, 11), trend=trend)
    found.mark = Mark(started=1)
    report = make_report(ADMITTED, ENDING._replace(trend=trend, overran=True), found)
    assert (report.basis, report.credits_consumed, report.consumed_at_least) == ("unknown", None, 40)
    assert report.over_budget  # the watch saw it
    unread = Exit()
    unread.saw(balance(100), 11)
    assert unread.trend == Trend.begin(Decimal(100), 11)


# the watch


def test_what_has_been_spent_by_now():
    before, fell = Decimal(120), Trend.begin(Decimal(120), 0.0).seen(Decimal(90), 1.0)
    rose = fell.seen(Decimal(95), 2.0)
    assert spent_so_far(before, Decimal(3), fell, 1) == Spending(Decimal(3), "recorded")
    assert spent_so_far(None, None, fell, 0) == Spending(None, "unknown")
    assert spent_so_far(before, None, None, 0).basis == "unknown"
    assert spent_so_far(before, None, fell, 0) == Spending(Decimal(30), "account_delta")
    assert spent_so_far(before, None, fell, None) == Spending(Decimal(30), "shared_account_delta")
    assert spent_so_far(before, None, rose, 1) == Spending(None, "unknown")
    assert spent_so_far(before, None, rose, 0) == Spending(Decimal(25), "at_least")


def test_alarms_are_all_that_there_is_to_say():
    watched = plan(50)._replace(watch=1.0, thresholds=(Decimal("0.5"), Decimal(1)), stop_below=Decimal(60))
    half = alarms(watched, Spending(Decimal(25), "account_delta"), Decimal(95))
    assert half == Alarms((Decimal("0.5"),))
    bound = alarms(watched, Spending(Decimal(51), "shared_account_delta"), Decimal(69))
    assert bound == Alarms((Decimal("0.5"), Decimal(1)), over_bound=True)
    sure = alarms(watched, Spending(Decimal(61), "recorded"), Decimal(59))
    assert sure == Alarms((Decimal("0.5"), Decimal(1)), over_budget=True, low=True)
    assert alarms(watched, Spending(None, "unknown"), None) == Alarms()
    assert alarms(watched._replace(watch=0.0), Spending(Decimal(30), "recorded"), None) == Alarms()


def test_only_what_is_sure_stops():
    spent, low = Spending(Decimal(51), "recorded"), Decimal(5)
    warn, stop = plan(50), plan(50)._replace(on_overrun="stop")
    assert reason_to_stop(warn, Alarms(over_budget=True), spent, low) is None
    assert reason_to_stop(stop, Alarms(over_bound=True), spent, low) is None
    error = reason_to_stop(stop, Alarms(over_budget=True), spent, low)
    assert (error.spent, error.budget, error.stop_below) == (51, 50, None)
    error = reason_to_stop(warn._replace(stop_below=Decimal(10)), Alarms(low=True), spent, low)
    assert (error.balance, error.stop_below) == (5, 10)
    assert not warn.may_stop
    assert stop.may_stop
    assert warn._replace(stop_below=Decimal(10)).may_stop


def test_the_tolerance_of_drift():
    assert drift_tolerance(plan(50), Decimal(20)) == 1
    assert drift_tolerance(plan(50), Decimal(-500)) == 5
    assert drift_tolerance(plan(50)._replace(drift_tolerance=Decimal(0)), Decimal(500)) == 0
