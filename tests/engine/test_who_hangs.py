"""A source, a ledger or a sink that hangs for ever: it costs whoever asked it what is documented, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
import threading
import time

import pytest
from attack_world import Log, Pool, in_thread, until

from creditguard import LedgerUnavailable, SourceError
from creditguard.engine.desk import Desk
from creditguard.engine.engine import engine
from creditguard.ledgers.none import NoLedger
from creditguard.rules.events import Event

pytestmark = pytest.mark.timeout(120)

TIMEOUT = 0.4
BOUND = 2 * TIMEOUT + 2.0
"""What entering or leaving may take: twice the timeout, and two seconds for the flow's last word."""
SLACK = 3.0
"""A machine with other things to do."""
ADMITTED = Event("creditguard.admitted", "info", {"run_id": "0123456789"})


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", str(TIMEOUT))


@pytest.fixture
def gate():
    """What hangs, hangs until the end of the test."""
    gate = threading.Event()
    yield gate
    gate.set()


class HangingPool(Pool):
    def __init__(self, gate):
        super().__init__()
        self.gate, self.hanging = gate, 0

    def read(self, timeout):
        self.hanging += 1
        self.gate.wait()
        return super().read(timeout)


class HangingLedger:
    """A ledger whose one verb hangs, or fails, as long as it is `broken`."""

    def __init__(self, ledger, verb, gate=None, broken=True):
        self.ledger, self.verb, self.gate, self.broken, self.calls = ledger, verb, gate, broken, []

    def __getattr__(self, name):
        found = getattr(self.ledger, name)
        if not callable(found):
            return found

        def verb(*args, **kwargs):
            self.calls.append(name)
            if name == self.verb and self.broken:
                if self.gate is None:
                    raise OSError("broken")
                self.gate.wait()
            return found(*args, **kwargs)

        return verb


class HangingLog(Log):
    def __init__(self, gate, name="creditguard.admitted"):
        super().__init__()
        self.gate, self.name, self.hanging = gate, name, 0

    def emit(self, event):
        if event.name == self.name:
            self.hanging += 1
            self.gate.wait()
        super().emit(event)


def timed(work):
    begun = time.monotonic()
    try:
        result = work()
    except Exception as error:
        result = error
    return result, time.monotonic() - begun


def enter_and_leave(guard):
    with guard as run:
        pass
    return run


def test_a_source_that_hangs_costs_its_caller_the_deadline_and_nobody_else_anything(sqlite_world, gate):
    hanging = sqlite_world.guard(source=HangingPool(gate))
    caller = in_thread(timed, lambda: enter_and_leave(hanging))
    for _ in range(20):
        _, took = timed(lambda: enter_and_leave(sqlite_world.guard()))
        assert took < SLACK
    error, took = caller()
    assert isinstance(error, SourceError)
    assert took < BOUND + SLACK
    assert sqlite_world.wrong() is None


def test_a_source_that_hangs_at_exit_costs_a_figure(sqlite_world, gate):
    pool = HangingPool(gate)
    gate.set()
    with sqlite_world.guard(source=pool) as run:
        gate.clear()
        begun = time.monotonic()
    assert time.monotonic() - begun < BOUND + SLACK
    assert run.report.basis == "unknown"
    assert sqlite_world.wrong() is None


def test_readings_that_are_left_behind_are_four_at_most(sqlite_world, gate):
    """And a source that is well is read again when they have come back."""
    pool = HangingPool(gate)
    for _ in range(8):
        error, took = timed(lambda: enter_and_leave(sqlite_world.guard(source=pool)))
        assert isinstance(error, SourceError)
        assert took < BOUND + SLACK
    until(lambda: pool.hanging >= 4, 2)
    time.sleep(TIMEOUT + 1.2)
    before = pool.hanging
    error, took = timed(lambda: enter_and_leave(sqlite_world.guard(source=pool)))
    assert "have not come back" in str(error)
    assert took < SLACK
    assert pool.hanging == before <= 8
    gate.set()
    assert until(lambda: not any(due < 0 for due in engine().readings_due.values()) and not engine().readings_due)
    assert enter_and_leave(sqlite_world.guard(source=pool)).report.outcome == "succeeded"


def test_forty_sources_that_hang_leave_the_ledger_and_the_events_to_the_others(sqlite_world, gate):
    pools = [HangingPool(gate) for _ in range(40)]
    with sqlite_world.guard() as open_run:
        callers = [
            in_thread(timed, lambda pool=pool: enter_and_leave(sqlite_world.guard(source=pool))) for pool in pools
        ]
        until(lambda: sum(pool.hanging for pool in pools) >= 16, 2)
        assert sqlite_world.holds() == [open_run.id]
    # Its reading may find no place, but its hold is given back, its event goes out, and it is not kept waiting.
    assert until(lambda: not sqlite_world.holds(), BOUND + SLACK)
    assert open_run.report.outcome == "succeeded"
    for caller in callers:
        error, took = caller()
        assert isinstance(error, SourceError)
        assert took < BOUND + 2 * SLACK
    gate.set()
    assert until(lambda: not engine().readings_due)
    assert sqlite_world.wrong() is None


def test_forty_sources_that_are_asked_in_one_instant_leave_threads_to_the_others(sqlite_world, gate):
    """All of their marks wait at the ledger, which answers them at once."""
    slow = HangingLedger(sqlite_world.ledger, "mark", threading.Event(), broken=False)
    with sqlite_world.guard(ledger=slow) as open_run:
        slow.broken = True
        pools = [HangingPool(gate) for _ in range(40)]
        callers = [
            in_thread(timed, lambda pool=pool: enter_and_leave(sqlite_world.guard(source=pool, ledger=slow)))
            for pool in pools
        ]
        (desk,) = {leases.desk for leases in engine()._leases.values() if leases.ledger is slow}
        assert until(lambda: len(desk._waiting) == 39)
        slow.broken = False
        slow.gate.set()
        assert until(lambda: sum(pool.hanging for pool in pools) >= 20, SLACK)
    assert until(lambda: not sqlite_world.holds(), BOUND + SLACK)
    assert open_run.report.outcome == "succeeded"
    gate.set()
    for caller in callers:
        caller()
    assert until(lambda: not engine().readings_due)
    assert sqlite_world.wrong() is None


def test_a_reading_that_had_to_wait_for_a_place_is_answered_once(sqlite_world, gate, caplog):
    """Its mark could not be taken, meanwhile all places were taken, and one of those who share it can do without a mark."""
    failing = HangingLedger(sqlite_world.ledger, "mark", broken=False)
    slow = HangingLedger(failing, "mark", threading.Event(), broken=False)
    pool, opened = HangingPool(gate), threading.Event()
    gate.set()
    readings = enter_and_leave(sqlite_world.guard(source=pool, ledger=slow))._life.parts.readings
    gate.clear()
    answers = []
    in_thread(lambda: readings.join(lambda *answer: answers.append(answer), marked=False))
    assert until(lambda: pool.hanging == 3)
    failing.broken = slow.broken = True
    for marked in (True, False):
        readings.join(lambda *answer: answers.append(answer), marked=marked)
    assert until(lambda: readings._next is None)
    others = [HangingPool(opened) for _ in range(19)]
    callers = [in_thread(timed, lambda pool=pool: enter_and_leave(sqlite_world.guard(source=pool))) for pool in others]
    assert until(lambda: len(engine().readings_due) == 20)
    slow.gate.set()
    assert until(lambda: engine().readings_waiting)
    opened.set()
    gate.set()
    assert until(lambda: len(answers) == 3)
    time_is_up = threading.Event()
    engine().later(TIMEOUT + 1.0, time_is_up.set)  # as long as it would have waited, had no place become free
    for caller in callers:
        caller()
    assert time_is_up.wait(BOUND)
    assert until(lambda: not engine().service.busy())
    assert sorted(failure is not None for _, failure in answers) == [False, False, True]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_place_that_becomes_free_is_not_offered_to_a_reading_that_waits_no_more(sqlite_world):
    readings = enter_and_leave(sqlite_world.guard())._life.parts.readings
    late, waiting = [], []
    readings._wait_for_a_place(lambda: late.append(True))
    assert until(lambda: late, BOUND)  # it has waited long enough
    readings._wait_for_a_place(lambda: waiting.append(True))
    readings.glance(TIMEOUT)
    assert until(lambda: waiting)
    assert (late, waiting) == ([True], [True])
    assert not engine().readings_waiting


def test_a_fork_beside_a_ledger_whose_closing_hangs_takes_nothing_from_the_others(sqlite_world, gate):
    """The fork goes on without it. When it comes back nobody waits for it any more, and no other ledger is stopped for that fork."""
    enter_and_leave(sqlite_world.guard(ledger=HangingLedger(sqlite_world.ledger, "close", gate)))
    enter_and_leave(sqlite_world.guard())
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    gate.set()
    time.sleep(0.2)  # it has come back by now
    run, took = timed(lambda: enter_and_leave(sqlite_world.guard()))
    assert run.report.outcome == "succeeded"
    assert took < SLACK


def test_a_ledger_whose_closing_fails_stops_no_fork(sqlite_world):
    broken = HangingLedger(sqlite_world.ledger, "close")
    enter_and_leave(sqlite_world.guard(ledger=broken))
    taken, took = timed(lambda: engine().release_connections(30))
    for go_on in taken:
        go_on()
    assert took < SLACK
    assert broken.calls.count("close") == 1
    assert enter_and_leave(sqlite_world.guard(ledger=broken)).report.outcome == "succeeded"


def test_a_ledger_that_answers_again_is_given_what_is_owed_at_once(sqlite_world, gate, monkeypatch):
    """And not after a pause as long as the last one, which has doubled at each failure."""
    monkeypatch.setattr(
        Desk, "hangs", lambda desk, _share=1: desk._free.locked()
    )  # the flow may come a moment too early to see it
    broken = HangingLedger(sqlite_world.ledger, "reserve", gate)
    with pytest.raises(LedgerUnavailable):
        enter_and_leave(sqlite_world.guard(ledger=broken))
    time.sleep(9)  # tries that fail after 1, 2, 4 and 8 seconds: the next is due in 7
    gate.set()
    assert until(lambda: "release" in broken.calls, within=4)
    assert sqlite_world.wrong() is None


@pytest.mark.parametrize("verb", ["mark", "reserve", "settle", "release"])
def test_a_ledger_that_hangs_costs_its_callers_the_deadline_and_nobody_else_anything(sqlite_world, gate, verb):
    broken = HangingLedger(sqlite_world.ledger, verb, gate)
    callers = [in_thread(timed, lambda: enter_and_leave(sqlite_world.guard(ledger=broken))) for _ in range(5)]
    for _ in range(20):
        _, took = timed(lambda: enter_and_leave(sqlite_world.guard(ledger="none")))
        assert took < SLACK
    for caller in callers:
        outcome, took = caller()
        assert took < 2 * BOUND + SLACK
        if verb in {"mark", "reserve"}:
            assert isinstance(outcome, LedgerUnavailable)
        else:
            assert outcome.report.outcome == "succeeded"
    gate.set()
    assert sqlite_world.wrong(10) is None


def test_a_ledger_that_hangs_is_unavailable_at_once_to_those_who_come_later(sqlite_world, gate):
    broken = HangingLedger(sqlite_world.ledger, "mark", gate)
    timed(lambda: enter_and_leave(sqlite_world.guard(ledger=broken)))
    error, took = timed(lambda: enter_and_leave(sqlite_world.guard(ledger=broken)))
    assert isinstance(error, LedgerUnavailable)
    assert took < TIMEOUT
    gate.set()
    time.sleep(0.2)
    assert enter_and_leave(sqlite_world.guard(ledger=broken)).report.outcome == "succeeded"


@pytest.mark.parametrize("name", ["creditguard.admitted", "creditguard.finished"])
@pytest.mark.parametrize("crowd", [1, 20])
def test_a_sink_that_hangs_loses_events_and_no_job(sqlite_world, gate, name, crowd):
    log = HangingLog(gate, name)
    callers = [in_thread(timed, lambda: enter_and_leave(sqlite_world.guard(sink=log))) for _ in range(crowd)]
    for caller in callers:
        run, took = caller()
        assert run.report.outcome == "succeeded", run
        assert took < 2 * BOUND + SLACK
    assert until(lambda: not sqlite_world.holds(), SLACK)
    assert enter_and_leave(sqlite_world.guard()).report.outcome == "succeeded"
    gate.set()
    assert until(engine().emitter.idle)
    assert sqlite_world.wrong(5) is None


def test_a_sink_that_hangs_while_the_caller_vanishes_keeps_no_hold(sqlite_world, gate):
    log = HangingLog(gate, "creditguard.finished")

    @sqlite_world.guard(sink=log)
    def job():
        yield 1

    items = job()
    next(items)
    vanishing = in_thread(items.throw, SystemExit)
    (life,) = engine().runs.values()
    engine().service.put(life.vanish)
    assert until(lambda: not sqlite_world.holds(), BOUND + SLACK)
    assert isinstance(vanishing(), SystemExit)


def test_a_sink_that_hangs_after_the_caller_was_interrupted_keeps_no_hold(sqlite_world, gate):
    """The interrupt cuts the reading short; then comes the sink, and nobody waits any more who could say that it is late."""
    pool, log = Pool(), HangingLog(gate, "creditguard.finished")
    before = signal.signal(signal.SIGALRM, lambda *_: sys.exit("time is up"))
    try:
        with pytest.raises(SystemExit), sqlite_world.guard(source=pool, sink=log):
            pool.delay = 0.3
            signal.setitimer(signal.ITIMER_REAL, 0.1)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert until(lambda: not sqlite_world.holds(), BOUND + SLACK)


def test_a_sink_that_hangs_after_a_coroutine_was_closed_keeps_no_hold(sqlite_world, gate):
    @sqlite_world.guard(sink=HangingLog(gate, "creditguard.finished"))
    async def job():
        await asyncio.Event().wait()

    async def drive():
        task = asyncio.ensure_future(job())
        while not engine().runs or not next(iter(engine().runs.values())).is_admitted:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        task.get_coro().close()
        task._log_destroy_pending = False

    asyncio.run(drive())
    assert until(lambda: not sqlite_world.holds(), BOUND + SLACK)


def test_a_sink_that_has_hung_three_times_is_still_left_behind_the_fourth_time(sqlite_world):
    for _ in range(4):
        gate = threading.Event()
        log = HangingLog(gate)
        caller = in_thread(timed, lambda log=log: enter_and_leave(sqlite_world.guard(sink=log)))
        until(lambda log=log: log.hanging)
        time.sleep(2.1)
        enter_and_leave(sqlite_world.guard())
        enter_and_leave(sqlite_world.guard())
        assert until(lambda: len(sqlite_world.log.runs()) == 2 and not sqlite_world._wrong(), 1), (
            "events wait behind a sink that hangs"
        )
        sqlite_world.log.clear()
        gate.set()
        caller()
        assert until(engine().emitter.idle)


def held(world):
    return [live.hold.amount // 10**6 for live in world.ledger.holds()]


def test_a_hold_that_has_just_grown_does_not_shrink_to_what_it_was(sqlite_world, gate):
    """The ledger has granted the extension, and its event is still on its way, when what was recorded meanwhile is to shrink the hold."""
    log = HangingLog(gate, "creditguard.extended")
    with sqlite_world.guard(budget=10, shrink=True, sink=log) as run:
        extended = in_thread(run.extend, 50)
        assert until(lambda: log.hanging)
        assert held(sqlite_world) == [60]
        run.record(1)
        enter_and_leave(sqlite_world.guard(sink=Log()))  # whose admission is to see what was recorded
        assert 59 <= held(sqlite_world)[0] <= 60
        gate.set()
        extended()
        assert until(lambda: held(sqlite_world) == [59])
        assert run.budget == 60


def test_two_extensions_at_once_are_both_counted(sqlite_world, gate):
    log = HangingLog(gate, "creditguard.extended")
    with sqlite_world.guard(budget=10, shrink=True, sink=log) as run:
        first = in_thread(run.extend, 5)
        assert until(lambda: log.hanging)
        second = in_thread(run.extend, 7)
        assert until(lambda: held(sqlite_world) == [22])
        gate.set()
        first(), second()
        assert run.budget == 22
        run.record(2)
        assert until(lambda: held(sqlite_world) == [20])
    assert run.report.budget == 22


def test_an_extension_that_the_ledger_grants_too_late_is_given_back(sqlite_world, gate):
    ledger = HangingLedger(sqlite_world.ledger, "extend", gate)
    with sqlite_world.guard(budget=10, ledger=ledger) as run:
        with pytest.raises(LedgerUnavailable):
            run.extend(5)
        gate.set()
        assert until(lambda: "shrink" in ledger.calls and held(sqlite_world) == [10])
        assert run.budget == 10


def test_when_as_many_sinks_hang_as_are_left_behind_nobody_waits_for_an_event_any_more(sqlite_world, gate):
    """Until one of them comes back: then callers go on when their events are out, as before."""
    engine().start()
    emitter, done = engine().emitter, []
    for _ in range(3):
        log = HangingLog(gate)
        emitter.emit(contextvars.copy_context(), log, ADMITTED)
        assert until(lambda log=log: log.hanging)
        time.sleep(2.1)  # from now on it is taken to hang
        emitter.emit(contextvars.copy_context(), Log(), ADMITTED)
        time.sleep(0.1)
    emitter.after(lambda: done.append(1))
    assert done == [1]
    gate.set()
    assert until(emitter.idle)
    emitter.after(lambda: done.append(2))
    assert until(lambda: done == [1, 2])


def test_what_is_done_elsewhere_is_done_here_when_all_service_threads_hang(monkeypatch, gate):
    monkeypatch.setattr("creditguard.engine.engine._LONGEST_IMPORT", 0.2)
    engine().start()
    hanging = []
    for _ in range(100):  # more than there are threads
        engine().service.put(lambda: (hanging.append(1), gate.wait()))
    assert until(lambda: len(hanging) >= 32)
    assert in_thread(engine().elsewhere, lambda: "done")() == "done"
    gate.set()


def test_a_release_that_failed_is_made_when_the_ledger_is_back(sqlite_world):
    """The others' lease is renewed meanwhile, and goes on being renewed."""
    broken = HangingLedger(sqlite_world.ledger, "settle")
    broken.ledger.ttl = 3.0
    broken.ledger._ttl = 3.0
    with sqlite_world.guard(ledger=broken) as other:
        failed = enter_and_leave(sqlite_world.guard(ledger=broken))
        assert failed.report.outcome == "succeeded"
        assert set(sqlite_world.holds()) == {failed.id, other.id}
        time.sleep(6)
        assert not other.lease_lost
        assert other.id in sqlite_world.holds()
        broken.broken = False
        assert until(lambda: sqlite_world.holds() == [other.id], 5)
    assert [report["run_id"] for report in sqlite_world.ledger.history()] == [other.id, failed.id]
    assert sqlite_world.wrong() is None


def test_a_report_that_no_ledger_takes_does_not_stand_in_the_way_of_the_others(sqlite_world):
    class Choosy(HangingLedger):
        def settle(self, run_id, account, report):
            if report["job"] == "bad":
                raise OSError("not this one")
            if self.broken:
                raise OSError("not now")
            return self.ledger.settle(run_id, account, report)

    choosy = Choosy(sqlite_world.ledger, None)
    bad = enter_and_leave(sqlite_world.guard("bad", ledger=choosy))
    enter_and_leave(sqlite_world.guard("good", ledger=choosy))
    assert len(sqlite_world.holds()) == 2
    choosy.broken = False
    assert until(lambda: sqlite_world.holds() == [bad.id], 10)
    sqlite_world.ledger.release(bad.id)


def test_a_lease_without_end_does_not_stop_the_clock(sqlite_world):
    class ForEver(NoLedger):
        ttl = float("inf")

    enter_and_leave(sqlite_world.guard(ledger=ForEver()))
    called = threading.Event()
    engine().timer.later(0.01, called.set)
    assert called.wait(5)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_whatever_a_ledger_raises_it_is_unavailable(sqlite_world, error):
    class Rude(HangingLedger):
        def reserve(self, *args, **kwargs):
            self.ledger.reserve(*args, **kwargs)
            raise error

    with pytest.raises(LedgerUnavailable):
        enter_and_leave(sqlite_world.guard(ledger=Rude(sqlite_world.ledger, None)))
    assert sqlite_world.wrong() is None


def test_a_watch_goes_on_when_a_reading_hangs(sqlite_world, gate):
    class Sometimes(Pool):
        hang = False

        def read(self, timeout):
            if self.hang:
                Sometimes.hang = False
                gate.wait()
            return super().read(timeout)

    pool = Sometimes()
    with sqlite_world.guard(source=pool, watch=0.05) as run:
        assert until(lambda: run._life.meter.trend and pool.reads > 3)
        Sometimes.hang = True
        assert until(lambda: not Sometimes.hang)
        before = pool.reads
        assert until(lambda: pool.reads > before + 3, 5)
