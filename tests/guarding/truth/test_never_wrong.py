"""For any interleaving of debits, refunds, top-ups and readings: an exact figure is exact, and a bound is on the right side.

What each claim rests on (creditguard/policy.py): nobody spends outside of creditguard; and for an exact figure, or an upper
bound, that no top-up hides. One that hides between two readings cannot be seen, so the claims are made for histories without
a top-up, and, with one, for the figures that say themselves that the balance rose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from creditguard.rules.report import make_report
from creditguard.rules.settling import Ending, Exit, settled_by_readings
from creditguard.rules.spending import Trend, alarms, reason_to_stop, spent_so_far
from creditguard.rules.values import Admission, Balance, Mark, Plan

WHEN = datetime(2026, 1, 1, tzinfo=timezone.utc)
START = 1000

amounts = st.integers(1, 60)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["job", "other", "top_up"]), amounts),
        st.tuples(st.sampled_from(["refund", "refund other"]), st.integers(0, 20)),
        st.just(("read", 0)),
    ),
    max_size=25,
)


@dataclass
class World:
    """An account, and the truth about it."""

    pool: int = START
    debited: int = 0
    refunded: int = 0
    by_others: list[int] = field(default_factory=list)
    mine: list[int] = field(default_factory=list)
    topped_up: bool = False
    others: int = 0

    def do(self, what, amount):
        if what == "job":
            self.pool -= amount
            self.debited += amount
            self.mine.append(amount)
        elif what == "other":
            self.pool -= amount
            self.by_others.append(amount)
            self.others = 1
        elif what == "top_up":
            self.pool += amount
            self.topped_up = True
        elif what == "refund" and self.mine:
            cost = self.mine.pop(amount % len(self.mine))
            self.pool += cost
            self.refunded += cost
        elif what == "refund other" and self.by_others:
            self.pool += self.by_others.pop(amount % len(self.by_others))

    @property
    def net(self):
        return self.debited - self.refunded


def balance(amount):
    return Balance(Decimal(amount), "credits", WHEN)


@given(
    steps, st.integers(0, 200), st.lists(st.tuples(st.sampled_from(["refund", "top_up", "read"]), amounts), max_size=4)
)
def test_no_figure_is_wrong_in_what_it_claims(history, budget, after_the_end):
    plan = Plan("r", "job", "acct", "src", Decimal(budget), watch=1.0, thresholds=(Decimal(1),))
    admission = Admission(plan, 0.0, balance(START), Mark())
    world, trend, now = World(), Trend.begin(Decimal(START), 0.0), 0.0
    for what, amount in history:
        now += 1
        if what != "read":
            world.do(what, amount)
            continue
        trend = trend.seen(Decimal(world.pool), now)
        spending = spent_so_far(Decimal(START), None, trend, world.others)
        if spending.basis == "account_delta" and not world.topped_up:
            assert spending.spent == world.net
        elif spending.basis == "at_least":
            assert spending.spent <= max(world.net, 0)
        elif spending.basis == "shared_account_delta" and not world.topped_up:
            assert spending.spent >= world.net
        if reason_to_stop(
            Plan("r", "job", "acct", "src", Decimal(budget), on_overrun="stop"),
            alarms(plan, spending, trend.last),
            spending,
            trend.last,
        ):
            assert world.net > budget  # nobody is stopped for what he has not spent, whatever else went on

    found = Exit(trend)
    found.saw(balance(world.pool), now + 1)
    for what, amount in after_the_end:
        now += 1
        world.do(what, amount)
        if what == "read":
            found.saw(balance(world.pool), now + 1)
    # The last reading is the last word: what comes after it nobody can know.
    found.saw(balance(world.pool), now + 2)
    found.mark = Mark(started=1 + world.others)
    found.settled = True
    report = make_report(admission, Ending("succeeded", None, now, trend=trend), found)

    if report.basis == "account_delta":
        assert world.others == 0
        if not world.topped_up:
            assert report.credits_consumed == world.net
            if report.over_budget is not None:
                assert report.over_budget == (world.net > budget)
        if report.over_budget:
            assert world.net > budget
    elif report.basis == "shared_account_delta":
        assert world.others
        if not world.topped_up:
            assert report.credits_consumed >= world.net
            assert report.over_budget is not True
            if report.over_budget is False:
                assert world.net <= budget
    else:
        assert report.basis == "unknown"
        assert report.credits_consumed is None
        assert world.topped_up or world.refunded or world.others
    if report.consumed_at_least is not None:
        assert world.others == 0
        assert report.consumed_at_least <= world.debited


@given(st.lists(amounts, min_size=1, max_size=10), st.integers(0, 6), st.integers(1, 3))
def test_a_balance_that_lags_is_not_called_settled_before_it_has_caught_up(costs, lag, pause):
    """By readings, of a run that was watched: the pauses that the run made are known."""
    shown, pool, now = [START] * (lag + 1), START, 0.0
    trend = Trend.begin(Decimal(START), 0.0)
    for cost in costs:
        pool -= cost
        for _ in range(pause):
            shown.append(pool)
            now += 1
            trend = trend.seen(Decimal(shown[-1 - lag]), now)
    admission = Admission(
        Plan("r", "job", "acct", "src", Decimal(900), settle=100, settle_stable=True), 0.0, balance(START), Mark()
    )
    ending, found = Ending("succeeded", None, now, trend=trend), Exit(trend)
    while not settled_by_readings(admission, ending, found) and now < 200:
        shown.append(pool)
        now += 1
        found.saw(balance(shown[-1 - lag]), now)
    moves_seen = trend.longest_pause > 0
    if moves_seen or pause == 1:
        assert found.after.amount == pool
