"""The life of a run, walked effect by effect: no I/O, no clock, no doubles, only values sent in and thrown in."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest

from creditguard.errors import (
    AuthenticationError,
    InsufficientCredits,
    LeaseLost,
    LedgerUnavailable,
    RateLimited,
    SourceError,
)
from creditguard.rules import events, flow
from creditguard.rules.effects import (
    CutShort,
    Deliver,
    Emit,
    Extend,
    Now,
    Publish,
    Read,
    Recent,
    Release,
    Reserve,
    SetLagging,
    Settle,
    Sleep,
    Sweep,
    TakeMark,
    Usual,
)
from creditguard.rules.settling import Ending
from creditguard.rules.values import Admission, Balance, Grant, Hold, LiveHold, Mark, Owner, Plan, Reading

WHEN = datetime(2026, 1, 1, tzinfo=timezone.utc)
PLAN = Plan("run-1", "nightly", "acct", "apimall", Decimal(80), labels={"team": "data"})
MARK = Mark(admitted=100_000_000, released=100_000_000, started=3, ended=3)
BUSY = Mark(admitted=180_000_000, released=100_000_000, started=4, ended=3)
DEAD = LiveHold(
    Hold("run-0", "acct", 30_000_000, "died", {"team": "data"}, 120_000_000),
    Owner("o", "host", "boot", 7, "1"),
    WHEN,
    WHEN,
    80_000_000,
)
DOWN = LedgerUnavailable("gone", "sqlite")
UNREAD = SourceError("no answer", "req_9", 500)


def balance(amount, request="req_1"):
    return Balance(Decimal(amount), "credits", WHEN, request, "apimall")


def reading(amount, mark=MARK):
    return Reading(balance(amount), mark)


def granted(held=0):
    return Grant(admitted=True, held_by_others=held * 10**6)


def denied(held):
    return Grant(admitted=False, held_by_others=held * 10**6)


class Walk:
    """Sends each outcome into the flow, throws it if it is an exception, and keeps the effects that were asked for. What is
    delivered to the caller is kept apart."""

    def __init__(self, generator, *outcomes):
        self.effects = []
        self.delivered = []
        self.result = self.error = None
        try:
            effect = next(generator)
            for outcome in outcomes:
                self.effects.append(effect)
                if isinstance(outcome, BaseException):
                    effect = generator.throw(outcome)
                else:
                    effect = generator.send(outcome)
                while isinstance(effect, Deliver):
                    self.delivered.append((len(self.effects), effect.outcome))
                    effect = generator.send(None)
        except StopIteration as stop:
            self.result = stop.value
        except BaseException as error:
            self.error = error
        else:
            raise AssertionError(f"the flow wants more: {effect}")

    @property
    def kinds(self):
        return [type(effect).__name__ for effect in self.effects]

    @property
    def events(self):
        return [effect.event for effect in self.effects if isinstance(effect, Emit)]


def test_what_fits_is_admitted_and_held():
    walk = Walk(flow.enter(PLAN), 1.0, reading(120), granted(), None, 2.0)
    assert walk.effects[1:3] == [Read(marked=True), Reserve(PLAN.hold(120_000_000), 120_000_000, MARK)]
    assert walk.kinds == ["Now", "Read", "Reserve", "Emit", "Now"]
    assert walk.events[0].name == events.ADMITTED
    assert walk.events[0].fields["headroom"] == 120
    assert walk.delivered == [(5, walk.result)]
    assert walk.result == Admission(
        PLAN, 2.0, balance(120), MARK, Decimal(0), headroom=Decimal(120), shortfall=Decimal(0)
    )


def test_short_with_nobody_else_on_the_account_is_refused_at_once():
    walk = Walk(flow.enter(PLAN), 1.0, reading(50), denied(0), None, None, 2.0, None)
    assert walk.kinds == ["Now", "Read", "Reserve", "Usual", "Emit", "Now", "Settle"]
    assert walk.events[0].name == events.REFUSED
    refusal = walk.result.refusal
    assert isinstance(refusal, InsufficientCredits)
    assert (refusal.needs, refusal.has, refusal.shortfall, refusal.run_id) == (80, 50, 30, "run-1")


USUALLY = "usually 60-75, at most 79 in 12 runs"


def test_a_refusal_cites_what_past_runs_of_the_job_took():
    walk = Walk(flow.enter(PLAN), 1.0, reading(50), denied(0), USUALLY, None, 2.0, None)
    assert walk.effects[3] == Usual("acct", "nightly")
    assert walk.events[0].fields["usually"] == USUALLY
    assert str(walk.result.refusal) == f"nightly: needs 80 credits, 50 are free (50 on the account) ({USUALLY})"


def test_a_refusal_stands_although_past_runs_cannot_be_looked_up():
    walk = Walk(flow.enter(PLAN), 1.0, reading(50), denied(0), DOWN, None, 2.0, None)
    assert walk.events[0].fields["usually"] is None
    assert (walk.result.refusal.has, walk.result.refusal.usually) == (50, None)


def test_whoever_asks_gets_it_too_whether_it_fits_or_not():
    for amount in (120, 50):
        walk = Walk(flow.ask(PLAN), 1.0, reading(amount), USUALLY, None)
        assert walk.kinds == ["Now", "Read", "Usual", "Emit"]
        assert walk.result.usually == USUALLY


def test_short_because_of_others_looks_again_before_it_refuses():
    walk = Walk(flow.enter(PLAN), 1.0, reading(120, BUSY), denied(80), [], reading(120, BUSY), None, None, 2.0, None)
    assert walk.kinds == ["Now", "Read", "Reserve", "Sweep", "Read", "Usual", "Emit", "Now", "Settle"]
    assert walk.result.refusal.has == 40
    assert (walk.result.held_by_others, walk.result.refusal.others, walk.events[0].fields["others"]) == (80, 1, 1)


def test_a_dead_owners_hold_is_dropped_and_the_run_admitted():
    walk = Walk(flow.enter(PLAN), 1.0, reading(120, BUSY), denied(80), [DEAD], None, reading(120), granted(), None, 2.0)
    assert walk.effects[3] == Sweep("acct")
    abandoned = walk.events[0]
    assert (abandoned.name, abandoned.level) == (events.ABANDONED, "warning")
    assert (abandoned.fields["job"], abandoned.fields["budget"], abandoned.fields["held"]) == ("died", 80, 30)
    assert (abandoned.fields["balance_before"], abandoned.fields["labels"]) == (120, {"team": "data"})
    assert walk.kinds == ["Now", "Read", "Reserve", "Sweep", "Emit", "Read", "Reserve", "Emit", "Now"]
    assert walk.result.refusal is None


def test_denied_again_after_looking_again_is_refused():
    walk = Walk(
        flow.enter(PLAN), 1.0, reading(120, BUSY), denied(80), [], reading(120), denied(60), None, None, 2.0, None
    )
    assert walk.events[0].name == events.REFUSED
    assert walk.result.refusal.has == 60
    assert walk.result.refusal.others is None  # whose the 60 are was not counted with them


@pytest.mark.parametrize("failure", [UNREAD, DOWN])
def test_if_looking_again_fails_the_first_answer_stands(failure):
    walk = Walk(flow.enter(PLAN), 1.0, reading(120, BUSY), denied(80), [], failure, None, None, 2.0, None)
    assert walk.events[0].name == events.REFUSED
    assert walk.result.refusal.has == 40


def test_warn_mode_starts_although_short_and_is_held_for_others_to_see():
    plan = PLAN._replace(on_short="warn")
    walk = Walk(flow.enter(plan), 1.0, reading(50), denied(0), granted(), None, 2.0)
    assert walk.events[0].name == events.SHORT
    assert walk.effects[3] == Reserve(plan.hold(), None, None)
    assert walk.result.refusal is None
    assert walk.result.shortfall == 30


def test_warn_mode_starts_even_if_that_hold_cannot_be_written():
    plan = PLAN._replace(on_short="warn")
    walk = Walk(flow.enter(plan), 1.0, reading(50), denied(0), DOWN, None, None, 2.0)
    assert [event.name for event in walk.events] == [events.LEDGER_UNAVAILABLE, events.SHORT]
    assert walk.result.refusal is None


def test_unreadable_fails_closed():
    walk = Walk(flow.enter(PLAN), 1.0, UNREAD, None, 2.0)
    assert walk.kinds == ["Now", "Read", "Emit", "Now"]
    event = walk.events[0]
    assert (event.name, event.level) == (events.UNREADABLE, "error")
    assert event.fields["policy"] == "abort"
    assert event.fields["status"] == 500
    assert event.fields["request_id"] == "req_9"
    assert walk.result.refusal is UNREAD


def test_unreadable_fails_open_when_told_to():
    plan = PLAN._replace(on_unreadable="warn")
    walk = Walk(flow.enter(plan), 1.0, UNREAD, None, granted(), 2.0)
    assert walk.kinds == ["Now", "Read", "Emit", "Reserve", "Now"]
    assert (walk.events[0].level, walk.events[0].fields["policy"]) == ("warning", "warn")
    assert walk.effects[3] == Reserve(plan.hold(), None, None)
    assert walk.result.refusal is None
    assert walk.result.balance is None


def test_a_ledger_that_was_named_fails_closed():
    walk = Walk(flow.enter(PLAN), 1.0, DOWN, None, 2.0)
    assert walk.kinds == ["Now", "Read", "Emit", "Now"]
    assert (walk.events[0].name, walk.events[0].level) == (events.LEDGER_UNAVAILABLE, "error")
    assert walk.result.refusal is DOWN


def test_the_ledger_nobody_asked_for_is_passed_over():
    plan = PLAN._replace(ledger_optional=True)
    walk = Walk(flow.enter(plan), 1.0, DOWN, None, reading(120, None), None, 2.0)
    assert walk.effects[3] == Read(marked=False)
    assert [(event.name, event.level) for event in walk.events] == [
        (events.LEDGER_UNAVAILABLE, "warning"),
        (events.ADMITTED, "info"),
    ]
    assert walk.result.ledger_failed
    assert walk.result.mark is None


def test_without_a_ledger_the_balance_still_decides():
    plan = PLAN._replace(on_unreadable="warn")
    walk = Walk(flow.enter(plan), 1.0, reading(120), DOWN, None, reading(50, None), None, 2.0, None)
    assert [event.name for event in walk.events] == [events.LEDGER_UNAVAILABLE, events.REFUSED]
    assert walk.result.refusal.has == 50


def test_neither_ledger_nor_balance():
    plan = PLAN._replace(ledger_optional=True)
    walk = Walk(flow.enter(plan), 1.0, DOWN, None, UNREAD, None, 2.0)
    assert [event.name for event in walk.events] == [events.LEDGER_UNAVAILABLE, events.UNREADABLE]
    assert walk.result.refusal is UNREAD


def test_neither_a_ledger_that_was_named_nor_a_balance():
    plan = PLAN._replace(on_unreadable="warn")
    walk = Walk(flow.enter(plan), 1.0, DOWN, None, UNREAD, None, 2.0)
    assert [event.name for event in walk.events] == [events.LEDGER_UNAVAILABLE, events.UNREADABLE]
    assert walk.result.refusal is None


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), RuntimeError("a bug")])
@pytest.mark.parametrize("answer", [True, DOWN])
def test_an_interrupted_reservation_is_given_back(interrupt, answer):
    walk = Walk(flow.enter(PLAN), 1.0, reading(120), interrupt, answer)
    assert walk.effects[-1] == Release("run-1")
    assert walk.error is interrupt


def test_an_interrupt_after_the_grant_gives_it_back():
    interrupt = KeyboardInterrupt()
    walk = Walk(flow.enter(PLAN), 1.0, reading(120), granted(), interrupt, True)
    assert walk.effects[-1] == Release("run-1")
    assert walk.error is interrupt


@pytest.mark.parametrize("outcomes", [[1.0], [1.0, reading(120)]])
def test_a_flow_that_is_dropped_asks_for_nothing_more(outcomes):
    generator = flow.enter(PLAN)
    next(generator)
    for outcome in outcomes:
        generator.send(outcome)
    generator.close()  # a RuntimeError if it yielded


# max_age


def test_a_recent_reading_of_another_process_serves():
    plan = PLAN._replace(max_age=5.0)
    walk = Walk(flow.enter(plan), 1.0, reading(120), granted(), None, 2.0)
    assert walk.effects[1] == Recent("acct", 5.0, 15.0)
    assert Read(marked=True) not in walk.effects


def test_whose_turn_it_is_reads_and_publishes():
    plan = PLAN._replace(max_age=5.0)
    walk = Walk(flow.enter(plan), 1.0, True, reading(120), None, granted(), None, 2.0)
    assert walk.effects[2:4] == [Read(marked=True), Publish("acct", reading(120))]


def test_the_others_wait_for_it():
    plan = PLAN._replace(max_age=5.0)
    walk = Walk(flow.enter(plan), 1.0, False, None, reading(120), granted(), None, 2.0)
    assert walk.kinds == ["Now", "Recent", "Sleep", "Recent", "Reserve", "Emit", "Now"]


def test_but_not_for_ever():
    plan = PLAN._replace(max_age=5.0)
    walk = Walk(flow.enter(plan), 1.0, *[False, None] * 150, reading(120), None, granted(), None, 2.0)
    assert walk.kinds.count("Sleep") == 150
    assert walk.result.refusal is None


# check


def test_asking_takes_nothing():
    walk = Walk(flow.ask(PLAN), 1.0, reading(120), None, None)
    assert walk.kinds == ["Now", "Read", "Usual", "Emit"]
    assert walk.result.shortfall == 0


def test_asking_counts_what_others_hold_and_looks_again():
    walk = Walk(flow.ask(PLAN), 1.0, reading(120, BUSY), [], reading(120, BUSY), None, None)
    assert walk.kinds == ["Now", "Read", "Sweep", "Read", "Usual", "Emit"]
    assert walk.result.refusal.has == 40


def test_asking_without_a_balance():
    assert Walk(flow.ask(PLAN), 1.0, UNREAD, None).result.refusal is UNREAD
    plan = PLAN._replace(on_short="warn", on_unreadable="warn")
    assert Walk(flow.ask(plan), 1.0, UNREAD, None).result.refusal is None


def test_asking_without_a_ledger():
    plan = PLAN._replace(ledger_optional=True)
    walk = Walk(flow.ask(plan), 1.0, DOWN, None, reading(120, None), None)
    assert walk.result.refusal is None
    assert walk.result.ledger_failed


# leave

ADMITTED = Admission(PLAN, 10.0, balance(120), MARK, Decimal(0), Decimal(120), Decimal(0))
ENDING = Ending("succeeded", None, 13.5)
ONE_MORE = MARK._replace(started=4)


def test_leaving_reads_settles_and_reports():
    walk = Walk(flow.leave(ADMITTED, ENDING), Reading(balance(100, "req_2")), ONE_MORE, None, None)
    assert walk.kinds == ["Read", "TakeMark", "Emit", "Settle"]
    report = walk.result
    assert walk.effects[3] == Settle(report)
    assert walk.delivered == [(3, report)]
    assert (report.credits_consumed, report.basis, report.overlapping_runs) == (20, "account_delta", 0)
    assert (report.duration_s, report.request_id_after, report.over_budget) == (3.5, "req_2", False)
    assert (walk.events[0].name, walk.events[0].level) == (events.FINISHED, "info")


def test_others_on_the_account_make_it_an_upper_bound():
    walk = Walk(flow.leave(ADMITTED, ENDING), Reading(balance(100)), MARK._replace(started=6), None, None)
    assert (walk.result.basis, walk.result.overlapping_runs) == ("shared_account_delta", 2)


def test_over_budget_is_a_warning():
    walk = Walk(flow.leave(ADMITTED, ENDING), Reading(balance(10)), ONE_MORE, None, None)
    assert walk.result.over_budget
    assert walk.events[0].level == "warning"


def test_settling_waits_before_it_reads():
    admission = ADMITTED._replace(plan=PLAN._replace(settle=30.0))
    walk = Walk(flow.leave(admission, ENDING), None, Reading(balance(100)), ONE_MORE, None, None)
    assert walk.effects[0] == Sleep(30.0)


def test_an_unreadable_exit_is_an_event_and_a_gap():
    walk = Walk(flow.leave(ADMITTED, ENDING), UNREAD, None, ONE_MORE, None, None)
    assert [(event.name, event.level) for event in walk.events] == [
        (events.UNREADABLE, "warning"),
        (events.FINISHED, "warning"),
    ]
    assert walk.events[0].fields["stage"] == "after"
    assert walk.result.credits_consumed is None
    assert isinstance(walk.effects[4], Settle)


def test_a_ledger_that_is_gone_at_exit_is_an_event():
    walk = Walk(flow.leave(ADMITTED, ENDING), Reading(balance(100)), DOWN, None, None, DOWN, None)
    assert [event.name for event in walk.events] == [
        events.LEDGER_UNAVAILABLE,
        events.FINISHED,
        events.LEDGER_UNAVAILABLE,
    ]
    assert walk.result.overlapping_runs is None
    assert walk.result.basis == "shared_account_delta"


def test_a_ledger_that_had_been_passed_over_is_not_complained_of_again():
    admission = ADMITTED._replace(mark=None, ledger_failed=True)
    walk = Walk(flow.leave(admission, ENDING), Reading(balance(100)), None, DOWN)
    assert walk.kinds == ["Read", "Emit", "Settle"]
    assert [event.name for event in walk.events] == [events.FINISHED]


def test_an_exit_reading_that_is_cut_short_leaves_a_gap():
    walk = Walk(flow.leave(ADMITTED, ENDING), CutShort(), None, None)
    assert walk.kinds == ["Read", "Emit", "Settle"]
    assert [event.name for event in walk.events] == [events.FINISHED]
    assert walk.result.balance_after is None


def test_a_caller_that_vanished_gets_no_reading_but_a_report():
    walk = Walk(flow.leave(ADMITTED, ENDING._replace(outcome="cancelled"), quickly=True), None, None)
    assert walk.kinds == ["Emit", "Settle"]
    assert (walk.result.outcome, walk.result.basis) == ("cancelled", "unknown")


def test_leaving_that_is_dropped_asks_for_nothing_more():
    generator = flow.leave(ADMITTED, ENDING)
    assert next(generator) == Read(marked=False)
    generator.close()


def test_lease_lost_has_its_event():
    event = events.lease_lost(ADMITTED, LedgerUnavailable("lapsed", "sqlite"))
    assert (event.name, event.level, event.fields["reason"]) == (events.LEASE_LOST, "error", "lapsed (ledger sqlite)")


def test_waiting_stands_for_a_refusal():
    refusal = events.refused(ADMITTED)
    assert events.as_waiting(refusal) == events.Event(events.WAITING, "info", {**refusal.fields, "reason": None})


def test_effects_are_plain_values():
    assert Now() == Now()
    assert TakeMark("a") != TakeMark("b")


# settling

STABLE = ADMITTED._replace(plan=PLAN._replace(settle=60.0, settle_stable=True))


def read_at(second, amount):
    """An exit reading, and what the clock says after it."""
    return Reading(balance(amount)), second


def test_stable_is_two_readings_that_agree():
    readings = [*read_at(0.0, 110), None, *read_at(15.0, 100), None, *read_at(30.0, 100)]
    walk = Walk(flow.leave(STABLE, ENDING), 0.0, *readings, ONE_MORE, None, None)
    assert walk.kinds == [
        "Now", "Read", "Now", "Sleep", "Read", "Now", "Sleep", "Read", "Now", "TakeMark", "Emit", "Settle"
    ]  # fmt: skip
    assert walk.effects[3] == Sleep(15.0)
    assert (walk.result.settled, walk.result.credits_consumed) == (True, 20)


def test_until_the_time_is_up():
    readings = []
    for second in (0.0, 15.1, 30.2, 45.3):
        readings += [*read_at(second, 110 - int(second)), None]
    walk = Walk(flow.leave(STABLE, ENDING), 0.0, *readings, *read_at(60.4, 50), ONE_MORE, None, None)
    assert walk.kinds.count("Read") == 5
    assert not walk.result.settled
    assert walk.result.credits_consumed == 70


def test_a_clock_that_stands_still_does_not_keep_us():
    readings = [*read_at(0.0, 120), None] * 4
    walk = Walk(flow.leave(STABLE, ENDING), 0.0, *readings, *read_at(0.0, 120), ONE_MORE, None, None)
    assert walk.kinds.count("Sleep") == 4
    assert not walk.result.settled


def test_while_settling_a_reading_may_fail():
    readings = [*read_at(0.0, 100), None, UNREAD, 15.0, None, *read_at(30.0, 100)]
    walk = Walk(flow.leave(STABLE, ENDING), 0.0, *readings, ONE_MORE, None, None)
    assert walk.result.settled
    assert [event.name for event in walk.events] == [events.FINISHED]


def test_but_not_all_of_them():
    plan = PLAN._replace(settle=10.0, settle_stable=True, min_interval=10.0)
    walk = Walk(
        flow.leave(ADMITTED._replace(plan=plan), ENDING),
        0.0,
        UNREAD,
        0.0,
        None,
        UNREAD,
        10.0,
        None,
        ONE_MORE,
        None,
        None,
    )
    assert [event.name for event in walk.events] == [events.UNREADABLE, events.FINISHED]
    assert not walk.result.settled


def test_what_was_read_before_settling_was_cut_short_stands():
    walk = Walk(flow.leave(STABLE, ENDING), 0.0, *read_at(0.0, 100), CutShort(), None, None)
    assert (walk.result.balance_after, walk.result.settled) == (100, False)


SURE = ENDING._replace(recorded=Decimal(20), pending=0)


def test_a_record_that_the_account_confirms_ends_the_waiting():
    walk = Walk(flow.leave(STABLE, SURE), 0.0, *read_at(0.0, 100), ONE_MORE, ONE_MORE, None, None)
    assert walk.kinds == ["Now", "Read", "Now", "TakeMark", "TakeMark", "Emit", "Settle"]
    assert walk.result.settled


@pytest.mark.parametrize("mark", [MARK._replace(started=6), DOWN])
def test_unless_others_may_explain_it(mark):
    later = [None, *read_at(15.0, 100), mark]
    walk = Walk(flow.leave(STABLE, SURE), 0.0, *read_at(0.0, 100), mark, *later, ONE_MORE, None, None)
    assert walk.kinds.count("Read") == 2
    assert walk.result.settled


def test_or_no_ledger_can_tell():
    admission = STABLE._replace(mark=None)
    walk = Walk(flow.leave(admission, SURE), 0.0, *read_at(0.0, 100), None, *read_at(15.0, 100), None, None)
    assert walk.kinds == ["Now", "Read", "Now", "Sleep", "Read", "Now", "Emit", "Settle"]


def test_drift_has_its_event():
    ending = ENDING._replace(recorded=Decimal(10))
    walk = Walk(flow.leave(ADMITTED, ending), Reading(balance(100)), ONE_MORE, None, None, None)
    drift, finished = walk.events
    assert (drift.name, drift.level, drift.fields["drift"]) == (events.DRIFT, "warning", 10)
    assert "somebody else" in drift.fields["reason"]
    assert "had not settled" in drift.fields["reason"]
    assert finished.fields["drift"] == 10


def test_an_account_that_lost_less_than_was_recorded_is_drift_once_it_has_settled():
    ending = ENDING._replace(recorded=Decimal(40), pending=0)
    walk = Walk(flow.leave(ADMITTED, ending), Reading(balance(100)), ONE_MORE, None, None, None)
    assert "lags" in walk.events[0].fields["reason"]
    walk = Walk(flow.leave(ADMITTED, ending._replace(pending=2)), Reading(balance(100)), ONE_MORE, None, None)
    assert [event.name for event in walk.events] == [events.FINISHED]


def test_what_the_watch_says_has_its_events():
    meter = events.SpentNow(Decimal(60), "account_delta", Decimal(20), Decimal("60.5"), 120.0, 30.2)
    threshold = events.threshold(ADMITTED, Decimal("0.5"), meter)
    assert (threshold.name, threshold.level) == (events.THRESHOLD, "warning")
    assert (threshold.fields["threshold"], threshold.fields["balance_now"]) == (0.5, 60.5)
    overrun = events.overrun(ADMITTED, "budget", meter, stopping=True)
    assert (overrun.name, overrun.fields["cause"], overrun.fields["stopping"]) == (events.OVERRUN, "budget", True)


# waiting for room

PATIENT = PLAN._replace(wait=60.0, min_interval=20.0)


def test_a_run_that_is_short_waits_and_holds_the_moment_that_it_fits():
    walk = Walk(
        flow.enter(PATIENT), 1.0, reading(50), denied(0), 1.5, None, None, reading(120), granted(), 25.0, None, 2.0
    )
    assert walk.kinds == ["Now", "Read", "Reserve", "Now", "Emit", "Sleep", "Read", "Reserve", "Now", "Emit", "Now"]
    assert [event.name for event in walk.events] == [events.WAITING, events.ADMITTED]
    assert 20.0 <= walk.effects[5].seconds <= 24.0
    assert [walk.effects[number].hold.waits for number in (2, 7)] == [3 * walk.effects[5].seconds] * 2, "its place"
    assert walk.result.refusal is None


def test_it_is_refused_when_the_time_is_up():
    again = [reading(50), denied(0), 61.5]
    walk = Walk(flow.enter(PATIENT), 1.0, reading(50), denied(0), 1.5, None, None, *again, None, None, 62.0, None)
    assert [event.name for event in walk.events] == [events.WAITING, events.REFUSED]
    assert walk.result.refusal.has == 50


@pytest.mark.parametrize("plan", [PLAN, PATIENT._replace(on_short="warn")])
def test_only_who_waits_has_a_place(plan):
    walk = Walk(flow.enter(plan), 1.0, reading(120), granted(), 1.5, None, 2.0, None)
    assert walk.effects[2].hold.waits == 0


def test_a_clock_that_stands_still_does_not_keep_it_waiting():
    attempt = [reading(50), denied(0), 1.0]
    tries = [*attempt, None, None, *attempt, None, *attempt, None, *attempt]
    walk = Walk(flow.enter(PATIENT), 1.0, *tries, None, None, 2.0, None)
    assert sum(effect.seconds for effect in walk.effects if isinstance(effect, Sleep)) == 60
    assert walk.result.refusal.has == 50


@pytest.mark.parametrize("failure", [UNREAD, DOWN])
def test_it_waits_for_an_answer_too(failure):
    walk = Walk(flow.enter(PATIENT), 1.0, failure, 1.5, None, None, reading(120), granted(), 25.0, None, 2.0)
    assert walk.events[0].fields["reason"] == str(failure)
    assert walk.result.refusal is None


@pytest.mark.parametrize("failure", [AuthenticationError("no"), RateLimited("wait", retry_after=100.0)])
def test_but_not_for_what_does_not_pass(failure):
    walk = Walk(flow.enter(PATIENT), 1.0, failure, 1.5, None, 2.0)
    assert walk.result.refusal is failure


@pytest.mark.parametrize("way", [flow.enter, flow.ask])
def test_it_does_not_wait_for_a_ledger_that_nobody_asked_for(way):
    walk = Walk(way(PATIENT._replace(ledger_optional=True)), 1.0, DOWN, None, reading(120, None), 1.5, None, 2.0)
    assert [event.name for event in walk.events] == [events.LEDGER_UNAVAILABLE, events.ADMITTED]
    assert "Sleep" not in walk.kinds
    assert walk.events[-1].fields["held"] == 0


def test_without_that_ledger_it_waits_for_room_all_the_same():
    again = [reading(120, None), 25.0, None, 26.0]
    walk = Walk(
        flow.enter(PATIENT._replace(ledger_optional=True)), 1.0, DOWN, None, reading(50, None), 1.5, None, None, *again
    )
    assert [event.name for event in walk.events] == [events.LEDGER_UNAVAILABLE, events.WAITING, events.ADMITTED]
    assert walk.kinds[-4:] == ["Read", "Now", "Emit", "Now"]
    assert walk.result.refusal is None


def test_it_waits_for_one_that_has_answered():
    first = [1.0, reading(50), denied(0), 1.5, None, None]
    walk = Walk(
        flow.enter(PATIENT._replace(ledger_optional=True)),
        *first, DOWN, 20.0, None, reading(120), granted(), 40.0, None, 41.0,
    )  # fmt: skip
    assert [event.name for event in walk.events] == [events.WAITING, events.ADMITTED]
    assert walk.events[-1].fields["held"] == 80


def test_and_passes_it_over_when_the_time_is_up():
    first = [1.0, reading(50), denied(0), 1.5, None, None]
    walk = Walk(
        flow.enter(PATIENT._replace(ledger_optional=True)), *first, DOWN, 61.5, None, reading(120, None), None, 62.0
    )
    assert [event.name for event in walk.events] == [events.WAITING, events.LEDGER_UNAVAILABLE, events.ADMITTED]
    assert walk.events[1].fields["policy"] == "passed_over"


def test_asking_waits_without_a_hold():
    walk = Walk(flow.ask(PATIENT), 1.0, reading(50), 1.5, None, None, reading(120), 25.0, None, None)
    assert walk.kinds == ["Now", "Read", "Now", "Emit", "Sleep", "Read", "Now", "Usual", "Emit"]
    assert walk.result.refusal is None


# asking for more


def test_an_extension_is_an_admission():
    walk = Walk(flow.extend(ADMITTED, Decimal(30)), reading(120, BUSY), granted(80), None)
    assert walk.effects[1] == Extend("run-1", 30_000_000, 120_000_000, BUSY)
    (event,) = walk.events
    assert (event.name, event.fields["budget"], event.fields["extended_by"]) == (events.EXTENDED, 110, 30)
    assert walk.result.plan.budget == 110


def test_an_extension_that_does_not_fit_changes_nothing():
    walk = Walk(flow.extend(ADMITTED, Decimal(50)), reading(120, BUSY), denied(80), [], reading(120, BUSY), denied(80))
    assert walk.kinds == ["Read", "Extend", "Sweep", "Read", "Extend"]
    assert isinstance(walk.error, InsufficientCredits)
    assert (walk.error.needs, walk.error.has) == (50, 40)
    assert (walk.error.held_by_others, walk.error.held) == (None, 80)


def test_a_run_that_starts_although_short_is_extended_although_short():
    admission = ADMITTED._replace(plan=PLAN._replace(on_short="warn"))
    walk = Walk(flow.extend(admission, Decimal(50)), reading(0), granted(80), None)
    assert walk.effects[1].available is None
    assert walk.result.plan.budget == 130


def test_a_hold_that_was_lost_is_not_extended():
    lost = Grant(admitted=False, held_by_others=0, missing=True)
    walk = Walk(flow.extend(ADMITTED, Decimal(50)), reading(500), lost)
    assert isinstance(walk.error, LeaseLost)


# an account that lags


def test_an_account_that_shows_debits_late_is_remembered():
    admission = ADMITTED._replace(plan=PLAN._replace(shrink=True))
    ending = ENDING._replace(recorded=Decimal(40))
    walk = Walk(flow.leave(admission, ending), Reading(balance(100)), ONE_MORE, None, None, None, None)
    assert walk.effects[-1] == SetLagging("acct", True)
    assert [(event.name, event.level) for event in walk.events][-2:] == [
        (events.LAGGING, "warning"),
        (events.FINISHED, "info"),
    ]


def test_until_a_settled_report_agrees_with_its_record():
    admission = ADMITTED._replace(plan=PLAN._replace(shrink=True))
    lagging = ONE_MORE._replace(lagging=True)
    ending = ENDING._replace(recorded=Decimal(20), pending=0)
    walk = Walk(flow.leave(admission, ending), Reading(balance(100)), lagging, None, None, None, None)
    assert SetLagging("acct", False) in walk.effects
    assert (walk.events[0].name, walk.events[0].level) == (events.LAGGING, "info")
    unsettled = ending._replace(pending=None)
    walk = Walk(flow.leave(admission, unsettled), Reading(balance(100)), lagging, None, None)
    assert walk.kinds == ["Read", "TakeMark", "Emit", "Settle"]


@pytest.mark.parametrize("mark", [MARK._replace(started=6)])
def test_others_on_the_account_may_explain_it(mark):
    admission = ADMITTED._replace(plan=PLAN._replace(shrink=True))
    walk = Walk(flow.leave(admission, ENDING._replace(recorded=Decimal(40))), Reading(balance(100)), mark, None, None)
    assert walk.kinds[-1] == "Settle"


def test_a_refusal_that_cannot_be_filed_stands_all_the_same():
    walk = Walk(flow.enter(PLAN), 1.0, reading(50), denied(0), None, None, 2.0, DOWN)
    assert walk.result.refusal.has == 50


def test_a_dead_owners_hold_makes_room_for_an_extension():
    walk = Walk(
        flow.extend(ADMITTED, Decimal(30)),
        reading(120, BUSY),
        denied(110),
        [DEAD],
        None,
        reading(120),
        granted(80),
        None,
    )
    assert [event.name for event in walk.events] == [events.ABANDONED, events.EXTENDED]


def test_a_report_is_a_sentence_and_a_line_in_a_notebook():
    report = Walk(flow.leave(ADMITTED, ENDING), Reading(balance(100)), ONE_MORE, None, None).result
    assert str(report) == "nightly: consumed 20 of 80 credits in 3.5 s, 100 left"
    assert report._repr_html_() == "<div>nightly: consumed 20 of 80 credits in 3.5 s, 100 left</div>"
