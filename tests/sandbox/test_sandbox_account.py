"""The account on its own, with a clock that moves when told."""

from __future__ import annotations

import pytest

from creditguard.sandbox.account import MAX_LAG, Account, CannotPay


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def status(account: Account, task_id: str) -> object:
    task = account.task(task_id)
    assert task is not None
    return task["status"]


def test_a_submit_is_debited_at_once_and_completes() -> None:
    account = Account(120)
    task, remaining = account.submit("nano-banana")
    assert (account.credits, remaining, task.credits_used) == (112, 112, 8)
    assert status(account, task.id) == "completed"
    assert (account.spent, account.refunded) == (8, 0)


def test_a_pool_that_cannot_pay_stays_as_it_is() -> None:
    account = Account(7)
    with pytest.raises(CannotPay, match="costs 8 credits and 7 remain"):
        account.submit("m")
    assert (account.credits, account.spent, account.tasks()) == (7, 0, [])
    account.submit("m", cost=7)
    assert account.credits == 0


def test_the_pool_may_be_overdrawn_when_allowed() -> None:
    account = Account(5)
    account.allow_negative = True
    account.submit("m", cost=8)
    account.drain(10)
    assert account.credits == -13


def test_a_stranger_cannot_drain_below_zero() -> None:
    account = Account(5)
    account.drain(10)
    assert account.credits == 0
    account.set_credits(-3)
    account.drain(10)
    assert account.credits == -3


def test_a_failed_task_is_refunded_at_once_by_default() -> None:
    account = Account(120)
    task, remaining = account.submit("m", outcome="failed")
    assert remaining == 112  # as of the debit
    assert account.credits == 120
    view = account.task(task.id)
    assert view is not None
    assert (view["status"], view["credits_used"], view["credits_refunded"]) == ("failed", 8, 8)
    assert view["error_message"]
    assert view["image_url"] is None


def test_a_refund_can_land_later_than_the_failure() -> None:
    clock = Clock()
    account = Account(120, clock)
    account.task_seconds, account.refund_delay = 5, 10
    task, _ = account.submit("m", outcome="failed")
    assert status(account, task.id) == "pending"
    clock.now += 5
    assert (status(account, task.id), account.credits) == ("failed", 112)
    clock.now += 9.9
    assert account.credits == 112
    clock.now += 0.1
    assert (account.credits, account.refunded) == (120, 8)


def test_a_task_looked_at_late_shows_when_it_ended() -> None:
    clock = Clock()
    account = Account(120, clock)
    account.task_seconds, account.refund_delay = 1, 2
    done, _ = account.submit("m")
    failed, _ = account.submit("m", outcome="failed")
    stuck, _ = account.submit("m", outcome="pending")
    clock.now += 60
    stamps = {
        str(task["task_id"]): [task[f"{name}_at"] for name in ("created", "completed", "updated")]
        for task in account.tasks()
    }

    def second(stamp: object) -> float:
        return float(str(stamp)[17:23])

    created, completed, updated = stamps[done.id]
    assert completed == updated
    assert (second(completed) - second(created)) % 60 == pytest.approx(1)
    created, completed, updated = stamps[failed.id]
    assert (second(completed) - second(created)) % 60 == pytest.approx(1)
    assert (second(updated) - second(created)) % 60 == pytest.approx(3)
    created, completed, updated = stamps[stuck.id]
    assert completed is None
    assert created == updated
    assert str(created).endswith("Z")


def test_the_next_tasks_fail_as_told_unless_the_submit_says_how_it_ends() -> None:
    account = Account(120)
    account.fail_next_tasks = 2
    outcomes = [account.submit("m", outcome="completed")[0], account.submit("m")[0]]
    outcomes += [account.submit("m")[0], account.submit("m")[0]]
    account.read_balance()
    assert [task.status for task in outcomes] == ["completed", "failed", "failed", "completed"]


def test_the_balance_shown_lags_behind_the_pool() -> None:
    account = Account(120)
    account.lag = 2
    shown = []
    for _ in range(5):
        shown.append(account.read_balance())
        account.drain(10)
    assert shown == [120, 120, 120, 110, 100]
    assert account.balance_reads == 5


def test_lag_set_in_between_shows_earlier_readings() -> None:
    account = Account(120)
    account.read_balance()
    account.drain(10)
    account.lag = 1
    assert account.read_balance() == 120
    assert account.read_balance() == 110


def test_the_pool_before_any_reading_is_what_a_lagging_first_reading_shows() -> None:
    account = Account(120)
    account.lag = 1
    account.submit("m")
    assert account.read_balance() == 120
    assert account.read_balance() == 112


def test_set_credits_is_shown_at_once() -> None:
    account = Account(120)
    account.lag = 3
    account.read_balance()
    account.set_credits(7)
    assert account.read_balance() == 7


def test_the_longest_lag_holds() -> None:
    account = Account(0)
    account.lag = MAX_LAG
    for _ in range(MAX_LAG):
        assert account.read_balance() == 0
        account.top_up(1)
    account.read_balance()
    assert account.read_balance() == 1


def test_a_stranger_spends_just_before_the_kth_reading() -> None:
    account = Account(120)
    account.read_balance()
    account.schedule("drain", 30, at_reading=2)  # counted from here
    account.schedule("top_up", 5, at_reading=2)
    account.schedule("top_up", 50, at_reading=3)
    assert [account.read_balance() for _ in range(4)] == [120, 95, 145, 145]


def test_a_stranger_spends_after_a_while() -> None:
    clock = Clock()
    account = Account(10, clock)
    account.schedule("top_up", 50, after=2)
    account.schedule("drain", 30, after=1)  # first in time: stops at 0
    assert account.credits == 10
    clock.now += 1
    assert account.credits == 0
    clock.now += 1
    assert account.credits == 50


def test_what_falls_due_meanwhile_is_applied_in_its_order() -> None:
    clock = Clock()
    account = Account(10, clock)
    account.schedule("top_up", 50, after=2)
    account.schedule("drain", 30, after=1)
    clock.now += 10
    assert account.credits == 50  # not 30


def test_an_unknown_task_is_none() -> None:
    assert Account(1).task("img_0") is None
