"""What every ledger that keeps holds must do, for each of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from ledger_world import Backend, in_threads, new_owner
from promises import READING

from creditguard.process.identity import this_process
from creditguard.rules.amounts import LARGEST, to_micro
from creditguard.rules.ports import Ledger
from creditguard.rules.report import Report
from creditguard.rules.values import Balance, Grant, Hold, Mark, Owner, Reading

pytestmark = pytest.mark.usefixtures("balanced")


@pytest.fixture
def owner() -> Owner:
    return new_owner()


def hold(run: str, amount: int = 80, account: str = "a", job: str = "job") -> Hold:
    return Hold(run, account, amount, job)


# Admission.


def test_two_that_do_not_fit_together_are_not_both_admitted(ledger: Ledger, owner: Owner) -> None:
    mark = ledger.mark("a")
    assert mark == Mark()
    assert ledger.reserve(hold("one"), owner, available=120, mark=mark) == Grant(admitted=True, held_by_others=0)
    assert ledger.reserve(hold("two"), owner, available=120, mark=mark) == Grant(admitted=False, held_by_others=80)
    assert ledger.reserve(hold("six", 40), owner, available=120, mark=mark) == Grant(admitted=True, held_by_others=80)
    assert ledger.mark("a") == Mark(admitted=120, released=0, started=2, ended=0)


def test_a_hold_that_was_taken_already_is_admitted_again_and_counted_once(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("other", 30), owner, available=None, mark=None)
    for _ in range(3):
        grant = ledger.reserve(hold("one"), owner, available=110, mark=Mark())
        assert grant == Grant(admitted=True, held_by_others=30)
    assert ledger.mark("a") == Mark(admitted=110, released=0, started=2, ended=0)


def test_what_was_spent_and_released_after_the_mark_still_counts(ledger: Ledger, owner: Owner) -> None:
    mark = ledger.mark("a")
    ledger.reserve(hold("quick"), owner, available=120, mark=mark)
    ledger.release("quick")
    assert ledger.reserve(hold("two"), owner, available=120, mark=mark) == Grant(admitted=False, held_by_others=80)
    assert ledger.reserve(hold("two"), owner, available=120, mark=ledger.mark("a")).admitted


def test_without_a_mark_what_is_held_now_counts(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("quick"), owner, available=None, mark=None)
    assert not ledger.reserve(hold("two"), owner, available=120, mark=None).admitted
    ledger.release("quick")
    assert ledger.reserve(hold("two"), owner, available=120, mark=None).admitted


def test_a_mark_from_a_ledger_that_was_lost_does_not_hide_what_is_held(ledger: Ledger, owner: Owner) -> None:
    mark = Mark(admitted=5000, released=5000, started=9, ended=9)
    ledger.reserve(hold("one"), owner, available=120, mark=mark)
    assert ledger.reserve(hold("two"), owner, available=120, mark=mark) == Grant(admitted=False, held_by_others=80)


def test_a_hold_is_taken_regardless_when_nothing_is_known(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    assert ledger.reserve(hold("two"), owner, available=None, mark=None) == Grant(admitted=True, held_by_others=80)
    assert ledger.reserve(hold("three"), owner, available=-5, mark=None) == Grant(admitted=False, held_by_others=160)


def test_accounts_are_apart(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=120, mark=Mark())
    assert ledger.reserve(hold("two", account="b"), owner, available=120, mark=Mark()).admitted
    assert ledger.mark("c") == Mark()


def test_an_empty_batch_is_held_too(ledger: Ledger, owner: Owner) -> None:
    assert ledger.reserve(hold("one", 0), owner, available=0, mark=Mark()).admitted
    assert not ledger.reserve(hold("two", 0), owner, available=-1, mark=Mark()).admitted
    assert ledger.mark("a") == Mark(started=1)


def test_the_largest_budgets_add_up(ledger: Ledger, owner: Owner) -> None:
    largest = to_micro(LARGEST, up=True)
    for number in range(25):
        assert ledger.reserve(hold(str(number), largest), owner, available=None, mark=None).admitted
        if number < 12:
            ledger.release(str(number))
    assert ledger.mark("a") == Mark(admitted=25 * largest, released=12 * largest, started=25, ended=12)
    assert not ledger.reserve(hold("more", 1), owner, available=13 * largest, mark=None).admitted
    assert ledger.reserve(hold("more", 1), owner, available=13 * largest + 1, mark=None).admitted


# The queue of those who wait.


def waiting(run: str, amount: int, account: str = "a") -> Hold:
    return Hold(run, account, amount, "job", waits=30)


@pytest.fixture
def queue(ledger: Ledger, owner: Owner) -> Ledger:
    """Of 100, 80 are held, and one waits for 60."""
    for number in range(4):
        assert ledger.reserve(hold(f"small-{number}", 20), owner, available=100, mark=None).admitted
    assert ledger.reserve(waiting("big", 60), owner, available=100, mark=None) == Grant(False, held_by_others=80)
    return ledger


def test_what_becomes_free_is_kept_for_who_waits(queue: Ledger, owner: Owner) -> None:
    new = hold("new", 20)
    assert queue.reserve(new, owner, available=100, mark=None) == Grant(admitted=False, held_by_others=100)
    queue.release("small-0")
    assert queue.reserve(new, owner, available=100, mark=None) == Grant(admitted=False, held_by_others=100)
    assert queue.reserve(waiting("big", 60), owner, available=100, mark=None) == Grant(False, held_by_others=60)
    queue.release("small-1")
    queue.release("small-2")
    beside = queue.reserve(new, owner, available=100, mark=None)
    assert beside == Grant(admitted=True, held_by_others=20), "there is room for both"
    assert queue.reserve(waiting("big", 60), owner, available=100, mark=None) == Grant(True, held_by_others=40)
    queue.release("small-3")
    assert queue.reserve(hold("next", 20), owner, available=100, mark=None).admitted, "nobody waits any more"


def test_who_waits_is_served_in_the_order_of_coming(queue: Ledger, owner: Owner) -> None:
    second = waiting("second", 20)
    assert not queue.reserve(second, owner, available=100, mark=None).admitted
    queue.release("small-0")
    queue.release("small-1")
    assert not queue.reserve(second, owner, available=100, mark=None).admitted
    assert queue.reserve(waiting("big", 60), owner, available=100, mark=None).admitted
    queue.release("small-2")
    assert not queue.reserve(hold("new", 20), owner, available=100, mark=None).admitted
    assert queue.reserve(second, owner, available=100, mark=None) == Grant(True, held_by_others=80)


@pytest.mark.parametrize("how", ["released", "settled", "does not ask any more"])
def test_a_place_ends(backend: Backend, queue: Ledger, owner: Owner, how: str) -> None:
    backend.clock.forward(20)
    assert not queue.reserve(waiting("big", 60), owner, available=100, mark=None).admitted
    backend.clock.forward(20)
    new = hold("new", 20)
    assert not queue.reserve(new, owner, available=100, mark=None).admitted, "it has asked again in time"
    if how == "released":
        queue.release("big")
    elif how == "settled":
        queue.settle("big", "a", {"job": "job", "outcome": "refused"})
    else:
        backend.clock.forward(20)
    assert queue.reserve(new, owner, available=100, mark=None).admitted


def test_who_comes_back_too_late_is_behind_the_others(backend: Backend, queue: Ledger, owner: Owner) -> None:
    backend.clock.forward(20)
    assert not queue.reserve(waiting("second", 60), owner, available=100, mark=None).admitted
    backend.clock.forward(20)
    assert not queue.reserve(waiting("big", 60), owner, available=100, mark=None).admitted
    for number in range(4):
        queue.release(f"small-{number}")
    assert not queue.reserve(waiting("big", 60), owner, available=100, mark=None).admitted
    assert queue.reserve(waiting("second", 60), owner, available=100, mark=None).admitted


def test_nothing_is_kept_for_who_needs_a_top_up(queue: Ledger, owner: Owner) -> None:
    assert queue.reserve(hold("less", 5), owner, available=59, mark=Mark(released=30)).admitted is False
    assert not queue.reserve(waiting("big", 60), owner, available=90, mark=None).admitted
    assert not queue.reserve(hold("new", 10), owner, available=90, mark=None).admitted
    queue.release("small-0")
    queue.release("small-1")
    assert queue.reserve(hold("one", 10), owner, available=59, mark=None).admitted, "by the reading of who asks"
    assert not queue.reserve(waiting("big", 60), owner, available=59, mark=None).admitted
    assert queue.reserve(hold("two", 20), owner, available=100, mark=None).admitted, "by the reading of who waits"
    assert not queue.reserve(waiting("second", 60), owner, available=100, mark=None).admitted
    queue.release("small-2")
    assert not queue.reserve(waiting("big", 60), owner, available=100, mark=None).admitted
    queue.release("small-3")
    assert queue.reserve(waiting("big", 60), owner, available=100, mark=None).admitted, "it has kept its place"


def test_the_queue_is_for_admissions_alone(queue: Ledger, owner: Owner) -> None:
    assert queue.extend("small-0", 20, available=100, mark=None).admitted, "a run that is under way goes on"
    assert queue.reserve(hold("warned", 20), owner, available=None, mark=None).admitted
    assert queue.reserve(hold("elsewhere", 20, "b"), owner, available=20, mark=None).admitted
    assert queue.reserve(hold("small-1", 20), owner, available=100, mark=None).admitted, "asked again"
    queue.release("never")
    late = queue.reserve(waiting("never", 20), owner, available=100, mark=None)
    assert late == Grant(admitted=False, held_by_others=120)


# The end of a run.


def test_settling_twice_releases_once_and_keeps_the_first_report(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    ledger.settle("one", "a", {"run_id": "one", "job": "job", "outcome": "succeeded"})
    ledger.settle("one", "a", {"run_id": "one", "job": "job", "outcome": "failed"})
    assert ledger.mark("a") == Mark(admitted=80, released=80, started=1, ended=1)
    (report,) = ledger.history()
    finished_at = datetime.fromisoformat(str(report["finished_at"]))
    assert finished_at.utcoffset() == timedelta(0)
    assert abs(finished_at - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert {**report, "finished_at": None} == {
        "run_id": "one",
        "job": "job",
        "outcome": "succeeded",
        "finished_at": None,
    }


def test_a_run_without_a_hold_is_history_too(ledger: Ledger) -> None:
    ledger.settle("one", "a", {"job": "job", "basis": "unknown"})
    assert [report["basis"] for report in ledger.history(account="a")] == ["unknown"]
    assert ledger.mark("a") == Mark()


def test_a_settled_run_is_not_revived_by_a_late_duplicate(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    ledger.settle("one", "a", {})
    assert not ledger.reserve(hold("one"), owner, available=None, mark=None).admitted
    assert ledger.mark("a") == Mark(admitted=80, released=80, started=1, ended=1)


def test_releasing_says_whether_there_was_a_hold(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    assert [ledger.release("one"), ledger.release("one"), ledger.release("never")] == [True, False, False]
    assert ledger.history() == []


def test_history_is_newest_first_by_account_and_job(ledger: Ledger) -> None:
    for number in range(6):
        job, account = ("even", "odd")[number % 2], ("a", "b")[number // 3]
        ledger.settle(str(number), account, {"n": number, "job": job})

    def numbers(**which: Any) -> list[object]:
        return [report["n"] for report in ledger.history(**which)]

    assert numbers() == [5, 4, 3, 2, 1, 0]
    assert numbers(limit=2) == [5, 4]
    assert numbers(limit=0) == []
    assert numbers(account="a") == [2, 1, 0]
    assert numbers(job="odd") == [5, 3, 1]
    assert numbers(account="b", job="even", limit=1) == [4]


def test_history_since(backend: Backend) -> None:
    ledger = backend.client()
    for number in range(3):
        ledger.settle(str(number), "a", {"n": number, "job": "job"})
        backend.clock.forward(100)
    since = datetime.fromisoformat(str(ledger.history()[1]["finished_at"])) - timedelta(seconds=1)
    for job in (None, "job"):
        assert [report["n"] for report in ledger.history(since=since, job=job)] == [2, 1]
        assert [report["n"] for report in ledger.runs(since=since, job=job)] == [1, 2]
    assert ledger.history(since=since, job="other") == [*ledger.runs(since=since, account="b")] == []


def test_all_runs_come_oldest_first_though_others_are_filed_meanwhile(ledger: Ledger) -> None:
    for number in range(1200):
        ledger.settle(f"{number:04}", "ab"[number % 2], {"n": number, "job": "j"})
    runs = ledger.runs()
    assert next(runs)["n"] == 0
    ledger.settle("later", "a", {"n": 1200})
    assert [report["n"] for report in runs] == [*range(1, 1201)]
    assert [report["n"] for report in ledger.runs(account="b", job="j")] == [*range(1, 1200, 2)]


def test_the_first_of_many_holds_are_listed(ledger: Ledger, owner: Owner) -> None:
    for number in range(30):
        ledger.reserve(hold(f"{number:02}", account="ab"[number % 2]), owner, available=None, mark=None)
    assert [live.hold.id for live in ledger.holds(limit=3)] == ["00", "01", "02"]
    assert [live.hold.id for live in ledger.holds("b", limit=2)] == ["01", "03"]
    assert list(ledger.holds(limit=0)) == []
    assert len(ledger.holds()) == 30


def test_old_history_is_pruned_a_batch_at_a_time(backend: Backend) -> None:
    ledger = backend.client(keep=3600.0)
    for number in range(60):
        ledger.settle(f"old-{number}", "a", {})
    backend.clock.forward(3601)
    for number in range(10):
        ledger.settle(f"new-{number}", "a", {})
    assert len(ledger.history(limit=1000)) == 10


def test_a_reservation_that_comes_after_its_release_grants_nothing(ledger: Ledger, owner: Owner) -> None:
    """Of a thread that was given up while it waited: nobody would ever release it."""
    assert not ledger.release("late")
    assert ledger.reserve(hold("late"), owner, available=120, mark=None) == Grant(admitted=False, held_by_others=0)
    ledger.settle("refused", "a", {"job": "job", "outcome": "refused"})
    assert not ledger.reserve(hold("refused"), owner, available=None, mark=None).admitted
    assert ledger.reserve(hold("taken"), owner, available=None, mark=None).admitted
    assert ledger.release("taken")
    assert not ledger.reserve(hold("taken"), owner, available=None, mark=None).admitted, "nor one that is repeated"
    assert ledger.mark("a") == Mark(80, 80, 1, 1)
    assert [report["outcome"] for report in ledger.history()] == ["refused"]


def test_a_release_is_remembered_for_an_hour(backend: Backend, owner: Owner) -> None:
    ledger = backend.client()
    for number in range(70):
        ledger.release(f"run-{number}")
    backend.clock.forward(3500)
    assert not ledger.reserve(hold("run-0"), owner, available=None, mark=None).admitted
    backend.clock.forward(200)
    for number in range(70):
        ledger.settle(f"settled-{number}", "a", {})
        ledger.release(f"new-{number}")
    assert ledger.reserve(hold("run-0"), owner, available=None, mark=None).admitted
    assert not ledger.reserve(hold("new-0"), owner, available=None, mark=None).admitted


# Holds that shrink and grow.


def test_what_a_run_has_spent_is_room_for_others(ledger: Ledger, owner: Owner) -> None:
    """A holds 80 of 120 and has spent 70 of them: 50 are left on the account, 10 are held, 40 are free."""
    mark = ledger.mark("a")
    ledger.reserve(hold("one"), owner, available=120, mark=mark)
    assert not ledger.reserve(hold("two", 30), owner, available=50, mark=ledger.mark("a")).admitted
    for _ in range(2):
        ledger.shrink("one", 10)
    assert ledger.mark("a") == Mark(admitted=80, released=70, started=1, ended=0)
    assert not ledger.reserve(hold("two", 30), owner, available=50, mark=mark).admitted, "by a balance from before"
    assert ledger.reserve(hold("two", 30), owner, available=50, mark=ledger.mark("a")) == Grant(True, 10)
    (live, _) = ledger.holds()
    assert (live.hold.amount, live.budget) == (10, 80)
    ledger.settle("one", "a", {})
    assert ledger.mark("a") == Mark(admitted=110, released=80, started=2, ended=1)


def test_a_hold_never_grows_by_shrinking(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    for to, left in ((80, 80), (90, 80), (50, 50), (60, 50), (-5, 0), (10, 0)):
        ledger.shrink("one", to)
        assert [live.hold.amount for live in ledger.holds()] == [left]
    assert ledger.mark("a") == Mark(admitted=80, released=80, started=1, ended=0)
    assert ledger.release("one")
    ledger.shrink("one", 1)
    ledger.shrink("never", 1)
    assert ledger.mark("a") == Mark(admitted=80, released=80, started=1, ended=1)


def test_nothing_shrinks_on_an_account_that_lags(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    for _ in range(2):
        ledger.set_lagging("a", lagging=True)
    assert ledger.mark("a") == Mark(admitted=80, released=0, started=1, ended=0, lagging=True)
    assert not ledger.mark("b").lagging
    ledger.shrink("one", 10)
    assert ledger.mark("a").released == 0
    ledger.set_lagging("a", lagging=False)
    ledger.shrink("one", 10)
    assert ledger.mark("a") == Mark(admitted=80, released=70, started=1, ended=0)
    ledger.set_lagging("new", lagging=True)
    assert ledger.mark("new") == Mark(lagging=True)


def test_an_extension_is_an_admission(ledger: Ledger, owner: Owner) -> None:
    mark = ledger.mark("a")
    ledger.reserve(hold("one"), owner, available=120, mark=mark)
    ledger.reserve(hold("other", 10), owner, available=120, mark=mark)
    assert ledger.extend("one", 31, available=120, mark=mark) == Grant(admitted=False, held_by_others=90)
    assert ledger.mark("a") == Mark(admitted=90, released=0, started=2, ended=0)
    assert ledger.extend("one", 30, available=120, mark=mark) == Grant(admitted=True, held_by_others=90)
    assert ledger.mark("a") == Mark(admitted=120, released=0, started=2, ended=0)
    ledger.shrink("one", 20)
    assert not ledger.extend("one", 1, available=120, mark=mark).admitted, "by a balance from before"
    assert ledger.extend("one", 5, available=None, mark=None).admitted
    one, _ = ledger.holds()
    assert (one.hold.amount, one.budget) == (25, 115)
    ledger.settle("one", "a", {})
    assert ledger.mark("a") == Mark(admitted=125, released=115, started=2, ended=1)


def test_a_hold_that_another_process_has_extended_since_does_not_shrink(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    ledger.shrink("one", 70, budget=80)
    assert [live.hold.amount for live in ledger.holds()] == [70]
    ledger.extend("one", 50, available=None, mark=None)
    ledger.shrink("one", 60, budget=80)
    assert [live.hold.amount for live in ledger.holds()] == [120]
    ledger.shrink("one", 110, budget=130)
    assert ledger.mark("a") == Mark(admitted=130, released=20, started=1, ended=0)
    ledger.shrink("never", 0, budget=80)


def test_a_run_without_a_hold_cannot_be_extended_and_is_told_so(ledger: Ledger, owner: Owner) -> None:
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    ledger.settle("one", "a", {})
    for run in ("one", "never"):
        grant = ledger.extend(run, 5, available=10**6, mark=None)
        assert (grant.admitted, grant.missing) == (False, True)
    assert ledger.mark("a") == Mark(80, 80, 1, 1)


# What people see.


def test_live_holds_are_listed_oldest_first(ledger: Ledger) -> None:
    first, second = new_owner(), new_owner(host="h2", pid=77, started="88")
    labels = {"team": "data", "attempt": 2, "dry": False, "share": 0.5}
    ledger.reserve(Hold("one", "a", 5, "nightly", labels), first, available=None, mark=None)
    ledger.reserve(Hold("two", "b", 6, "hourly"), second, available=None, mark=None)
    one, two = ledger.holds()
    assert (one.hold, one.owner) == (Hold("one", "a", 5, "nightly", labels), first)
    assert (two.hold, two.owner) == (Hold("two", "b", 6, "hourly"), second)
    assert [live.hold for live in ledger.holds("b")] == [two.hold]
    assert ledger.holds("c") == []
    for live in (one, two):
        assert abs(live.since - datetime.now(timezone.utc)) < timedelta(minutes=1)
        assert timedelta(seconds=59) < live.lease_ends - live.since < timedelta(seconds=61)


ODD = [
    "",
    "café ☕",
    "nul\0nul",
    "bytes \udcff",
    "'; DROP TABLE holds; --",
    "100%",
    "%s %(x)s {0}",
    "back\\slash",
    "a\nb",
]


@pytest.mark.parametrize("odd", ODD)
def test_any_text_will_do(ledger: Ledger, owner: Owner, odd: str) -> None:
    run = f"run {odd}"
    grant = ledger.reserve(Hold(run, odd, 5, odd, {odd: odd}), owner, available=5, mark=ledger.mark(odd))
    assert grant.admitted
    assert ledger.mark(odd).started == 1
    assert len(ledger.holds(odd)) == 1
    assert ledger.renew(owner, [run, odd]) == {odd}
    ledger.publish(odd, Reading(Balance(Decimal(1), odd, datetime.now(timezone.utc), odd, odd)))
    reading = ledger.recent(odd, max_age=60, claim=1)
    assert isinstance(reading, Reading)
    assert reading.balance.unit == odd
    ledger.settle(run, odd, {"job": odd, "labels": {odd: odd}})
    assert [report["job"] for report in ledger.history(account=odd, job=odd)] == [odd]
    assert not ledger.release(run)


# Leases.


def test_a_lease_that_is_renewed_lasts(backend: Backend, owner: Owner) -> None:
    ledger = backend.client()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    for _ in range(5):
        backend.clock.forward(40)
        assert ledger.renew(owner, ["one"]) == frozenset()
        assert len(ledger.sweep("a")) == 0


def test_a_reservation_renews_the_lease(backend: Backend, owner: Owner) -> None:
    ledger = backend.client()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    backend.clock.forward(40)
    ledger.reserve(hold("two"), owner, available=None, mark=None)
    backend.clock.forward(40)
    assert len(ledger.sweep("a")) == 0
    assert ledger.renew(owner, ["one", "two"]) == frozenset()


def test_a_lease_that_ended_frees_the_hold_and_its_owner_is_told(backend: Backend, owner: Owner) -> None:
    ledger = backend.client()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    backend.clock.forward(59)
    assert len(ledger.sweep("a")) == 0
    backend.clock.forward(2)
    assert len(ledger.sweep("a")) == 1
    assert len(ledger.sweep("a")) == 0
    assert ledger.mark("a") == Mark(admitted=80, released=80, started=1, ended=1)
    assert ledger.renew(owner, ["one"]) == {"one"}
    assert not ledger.release("one")


def test_a_process_that_was_stopped_does_not_free_what_it_holds_itself(backend: Backend) -> None:
    """A guard of its own may look for the dead before the lease is renewed."""
    ledger = backend.client()
    ledger.reserve(hold("one"), this_process(), available=None, mark=None)
    backend.clock.forward(61)
    assert ledger.sweep("a") == ()
    assert [live.hold.id for live in ledger.holds()] == ["one"]
    assert not ledger.reserve(hold("two"), this_process(), available=120, mark=None).admitted
    assert ledger.renew(this_process(), ["one"]) == {"one"}


def test_a_lapse_that_nobody_used_is_told_for_good_and_the_hold_stays(backend: Backend, owner: Owner) -> None:
    ledger = backend.client()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    backend.clock.forward(61)
    assert ledger.renew(owner, ["one"]) == {"one"}
    assert ledger.renew(owner, ["one"]) == {"one"}, "the first answer may have been lost"
    assert len(ledger.sweep("a")) == 0
    assert ledger.mark("a").ended == 0


def test_a_reservation_does_not_hide_that_the_lease_had_lapsed(backend: Backend, owner: Owner) -> None:
    ledger = backend.client()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    backend.clock.forward(61)
    ledger.reserve(hold("two"), owner, available=None, mark=None)
    assert ledger.renew(owner, ["one", "two"]) == {"one"}


def test_a_lapse_without_holds_is_no_loss(backend: Backend, owner: Owner) -> None:
    ledger = backend.client()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    ledger.release("one")
    backend.clock.forward(600)
    ledger.reserve(hold("two"), owner, available=None, mark=None)
    assert ledger.renew(owner, ["two"]) == frozenset()


def test_what_is_not_held_is_lost(ledger: Ledger) -> None:
    mine, other = new_owner(), new_owner()
    ledger.reserve(hold("one"), mine, available=None, mark=None)
    ledger.reserve(hold("two"), other, available=None, mark=None)
    assert ledger.renew(mine, ["one", "two", "three"]) == {"two", "three"}
    assert ledger.renew(new_owner(), ["one"]) == {"one"}
    assert ledger.renew(mine, []) == frozenset()


def test_a_dead_owner_frees_its_holds_at_once(backend: Backend) -> None:
    ledger = backend.client()
    dead, alive = new_owner(), new_owner()
    for run, owner, account in (("one", dead, "a"), ("two", dead, "a"), ("three", alive, "a"), ("four", dead, "b")):
        ledger.reserve(hold(run, 10, account), owner, available=None, mark=None)
    backend.dead.add(dead.id)
    assert len(ledger.sweep("a")) == 2
    assert ledger.mark("a") == Mark(admitted=30, released=20, started=3, ended=2)
    assert [live.hold.id for live in ledger.holds()] == ["three", "four"]
    assert len(ledger.sweep("b")) == 1
    assert len(ledger.sweep("never")) == 0


def test_a_run_whose_hold_was_swept_is_reported_once(backend: Backend) -> None:
    ledger, dead = backend.client(), new_owner(host="h", pid=77)
    ledger.reserve(Hold("one", "a", 80_500_000, "nightly", {"team": "x"}, 120_000_000), dead, available=None, mark=None)
    ledger.reserve(Hold("two", "a", 5_000_000, "hourly"), dead, available=None, mark=None)
    ledger.shrink("one", 30_000_000)
    backend.dead.add(dead.id)
    one, two = ledger.sweep("a")
    assert one.hold == Hold("one", "a", 30_000_000, "nightly", {"team": "x"}, 120_000_000)
    assert (one.owner, one.budget, two.budget) == (dead, 80_500_000, 5_000_000)
    assert list(backend.client().sweep("a")) == []
    report = next(report for report in ledger.history(job="nightly"))
    known = {key: value for key, value in report.items() if value is not None}
    assert datetime.fromisoformat(known.pop("finished_at"))  # type: ignore[arg-type]
    assert abs(datetime.fromisoformat(known.pop("since")) - one.since) < timedelta(seconds=1)  # type: ignore[arg-type]
    assert known == {
        "run_id": "one",
        "job": "nightly",
        "account": "a",
        "budget": 80.5,
        "balance_before": 120,
        "labels": {"team": "x"},
        "basis": "unknown",
        "consumed_at_least": 50.5,
        "settled": False,
        "outcome": "abandoned",
    }
    assert set(Report.__slots__) <= set(report)


def test_a_run_that_was_taken_for_dead_has_the_last_word(backend: Backend, owner: Owner) -> None:
    """It was stopped for longer than its lease: its own report is worth more than the sweeper's."""
    ledger = backend.client()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    backend.clock.forward(61)
    assert len(ledger.sweep("a")) == 1
    for outcome in ("succeeded", "failed"):
        ledger.settle("one", "a", {"job": "job", "outcome": outcome})
    assert [report["outcome"] for report in ledger.history()] == ["succeeded"]
    assert ledger.mark("a") == Mark(80, 80, 1, 1)


def test_an_owner_whose_lease_ended_is_known_until_its_last_hold_is_free(backend: Backend, owner: Owner) -> None:
    ledger = backend.client()
    for account in ("a", "b"):
        ledger.reserve(hold(account, 10, account), owner, available=None, mark=None)
    backend.clock.forward(61)
    assert len(ledger.sweep("a")) == 1
    assert [live.hold.id for live in ledger.holds()] == ["b"]
    assert ledger.renew(owner, ["a", "b"]) == {"a", "b"}
    assert len(ledger.sweep("b")) == 0
    backend.clock.forward(61)
    assert len(ledger.sweep("b")) == 1


def test_an_owner_that_renews_between_the_look_and_the_sweep_is_let_off(backend: Backend) -> None:
    owner, other = new_owner(), new_owner()
    ledger = backend.client()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    ledger.reserve(hold("two"), other, available=None, mark=None)
    backend.clock.forward(61)

    def renew_meanwhile(judged: Owner) -> bool:
        if judged.id == owner.id:
            backend.client().renew(owner, ["one"])
        return False

    assert len(backend.client(is_dead=renew_meanwhile).sweep("a")) == 1
    assert [live.hold.id for live in ledger.holds()] == ["one"]


def test_owners_without_holds_are_forgotten(backend: Backend) -> None:
    ledger = backend.client()
    for number in range(5):
        ledger.reserve(hold(str(number)), new_owner(), available=None, mark=None)
        ledger.release(str(number))
    keeper = new_owner()
    ledger.reserve(hold("kept"), keeper, available=None, mark=None)
    backend.clock.forward(61)
    assert owners(backend) == 6
    ledger.reserve(hold("late"), new_owner(), available=None, mark=None)
    assert len(ledger.sweep("a")) == 1
    assert owners(backend) == 1


def owners(backend: Backend) -> int:
    if backend.kind == "sqlite":
        with closing(sqlite3.connect(backend.url.removeprefix("sqlite:///"))) as sql:
            return int(sql.execute("SELECT count(*) FROM owners").fetchone()[0])
    with psycopg.connect(backend.url, prepare_threshold=None) as connection:
        found = connection.execute("SELECT count(*) FROM creditguard.owners").fetchone()
        assert found
        return int(found[0])


def test_two_sweepers_at_once_free_each_hold_once(backend: Backend) -> None:
    ledger = backend.client()
    for _ in range(5):
        dead = [new_owner() for _ in range(4)]
        for number, owner in enumerate(dead * 5):
            ledger.reserve(hold(f"{owner.id}-{number}", 1), owner, available=None, mark=None)
        backend.dead.update(owner.id for owner in dead)
        freed = in_threads(4, lambda _: backend.client().sweep("a"))
        assert len({live.hold.id for each in freed for live in each}) == sum(map(len, freed)) == 20
    assert ledger.mark("a") == Mark(admitted=100, released=100, started=100, ended=100)


# Readings for others.


def test_one_reads_for_all(backend: Backend) -> None:
    one, two = backend.client(), backend.client()
    assert one.recent("a", max_age=30, claim=5) is True
    assert two.recent("a", max_age=30, claim=5) is False
    assert two.recent("b", max_age=30, claim=5) is True
    one.publish("a", READING)
    assert two.recent("a", max_age=30, claim=5) == READING
    assert one.recent("b", max_age=30, claim=5) is False


def test_a_reading_ages(backend: Backend) -> None:
    ledger = backend.client()
    ledger.publish("a", READING)
    backend.clock.forward(20)
    assert ledger.recent("a", max_age=30, claim=5) == READING
    assert ledger.recent("a", max_age=10, claim=5) is True
    assert ledger.recent("a", max_age=30, claim=5) == READING
    backend.clock.forward(11)
    assert ledger.recent("a", max_age=30, claim=5) is True
    ledger.publish("a", Reading(READING.balance, None))
    assert ledger.recent("a", max_age=30, claim=5) == Reading(READING.balance, None)


def test_a_claim_that_came_to_nothing_ends(backend: Backend) -> None:
    ledger = backend.client()
    assert ledger.recent("a", max_age=30, claim=5) is True
    backend.clock.forward(4)
    assert ledger.recent("a", max_age=30, claim=5) is False
    backend.clock.forward(2)
    assert ledger.recent("a", max_age=30, claim=5) is True
    assert ledger.recent("a", max_age=30, claim=5) is False


def test_readings_and_holds_of_an_account_do_not_disturb_each_other(ledger: Ledger, owner: Owner) -> None:
    ledger.publish("a", READING)
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    assert ledger.recent("a", max_age=30, claim=5) == READING
    ledger.publish("a", READING)
    assert ledger.mark("a") == Mark(admitted=80, started=1)


def test_of_many_that_ask_at_once_one_is_to_read(backend: Backend) -> None:
    backend.client().mark("a")
    answers = in_threads(12, lambda _: backend.client().recent("a", max_age=30, claim=5))
    assert sorted(answers) == [False] * 11 + [True]


# Use.


def test_many_clients_share_what_there_is(backend: Backend, owner: Owner) -> None:
    backend.client().mark("a")

    def work(index: int) -> int:
        ledger = backend.client()
        return sum(
            ledger.reserve(hold(f"{index}-{n}", 10), owner, available=400, mark=Mark()).admitted for n in range(5)
        )

    assert sum(in_threads(16, work)) == 40
    assert backend.client().mark("a") == Mark(admitted=400, started=40)


def test_a_ledger_that_was_closed_opens_again(ledger: Ledger, owner: Owner) -> None:
    ledger.close()
    ledger.reserve(hold("one"), owner, available=None, mark=None)
    ledger.close()
    ledger.close()
    assert ledger.mark("a").started == 1


def test_a_ledger_says_what_it_is(backend: Backend, ledger: Ledger) -> None:
    assert ledger.mark("a") == Mark()
    assert ledger.name == {"sqlite": "sqlite", "postgres": "postgresql"}[backend.kind]
    assert ledger.ttl == 60.0
    assert repr(ledger).startswith(("SqliteLedger(", "PostgresLedger("))
