"""What a row of readings says."""

from __future__ import annotations

from decimal import Decimal

from creditguard.rules.spending import Trend


def trend(*readings):
    first, *rest = readings
    found = Trend.begin(Decimal(first[0]), first[1])
    for amount, at in rest:
        found = found.seen(Decimal(amount), at)
    return found


def test_falls_are_added_up_and_a_rise_is_remembered():
    found = trend((100, 0), (90, 1), (95, 2), (95, 3), (80, 4))
    assert (found.fallen, found.rose, found.last) == (25, True, 80)


def test_the_longest_pause_is_the_longest_between_two_moves():
    assert trend((100, 0), (100, 5)).longest_pause == 0
    assert trend((100, 0), (90, 7)).longest_pause == 0
    assert trend((100, 0), (90, 7), (90, 8), (80, 10), (70, 11), (70, 99)).longest_pause == 3


def test_the_burn_rate_is_that_of_the_latest_readings():
    assert trend((100, 0)).burn_rate is None
    assert trend((100, 0), (90, 60)).burn_rate == 10
    assert trend((100, 0), (100, 0)).burn_rate is None  # the clock stood still
    assert trend((100, 0), *((90, 60 * minute) for minute in range(1, 8))).burn_rate == 0
    assert trend((100, 0), (90, 60), (190, 120)).burn_rate == 5


def test_time_to_empty_is_in_seconds():
    assert trend((100, 0)).time_to_empty is None
    assert trend((100, 0), (100, 60)).time_to_empty is None
    assert trend((100, 0), (90, 60)).time_to_empty == 540
    assert trend((5, 0), (-5, 60)).time_to_empty == 0
