"""Guards inside of guards' own machinery: the collector closes generators at any allocation, in any thread, the engine's own included."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
from attack_world import Pool, in_thread, until

from creditguard import LeaseLost, LedgerUnavailable
from creditguard.engine.engine import engine
from creditguard.engine.waiting import Ticket
from creditguard.process.background import Timer

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def collecting_all_the_time():
    """A collection at every allocation, so that a finalizer may run between any two instructions."""
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1000)
    yield
    gc.set_threshold(*before)


@pytest.fixture
def switching_all_the_time():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def drop_a_started_generator(world):
    """In a cycle: only the collector closes it, where it happens to run."""

    @world.guard("dropped")
    def job():
        yield 1
        yield 2

    class Knot:
        pass

    knot = Knot()
    knot.itself, knot.items = knot, job()
    next(knot.items)


@pytest.mark.usefixtures("collecting_all_the_time")
def test_generators_that_the_collector_closes_while_many_guards_run(world):
    def work(number):
        for turn in range(8):
            if turn % 2:
                drop_a_started_generator(world)
            else:
                with world.guard("steady") as run:
                    run.record(1)
                assert run.report.outcome == "succeeded"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    gc.collect()
    assert world.wrong(5) is None


def test_generators_that_are_closed_in_the_engines_own_threads(sqlite_world):
    """A source, a sink and a ledger's verb, each with a finalizer in the middle."""
    closed_in = set()

    def job():
        try:
            yield 1
        finally:
            closed_in.add(threading.get_ident())

    pending = []

    class Closing(Pool):
        def read(self, timeout):
            if pending:
                pending.pop().close()
            return super().read(timeout)

    for _ in range(10):
        items = sqlite_world.guard("generator")(job)()
        next(items)
        pending.append(items)
        del items
        with sqlite_world.guard(source=Closing()) as run:
            pass
        assert run.report.outcome == "succeeded"
    assert until(lambda: not pending)
    assert closed_in.isdisjoint({threading.get_ident()})
    assert sqlite_world.wrong() is None


@pytest.mark.parametrize("on_unreadable", ["abort", "warn"])
def test_a_guard_entered_in_a_thread_of_the_engine_is_decided_at_once_by_policy(sqlite_world, on_unreadable):
    """A finalizer that enters a guard runs wherever the collector does. It must not wait for the very thread that it is in."""
    outcomes = []

    class Finalized:
        def __del__(self):
            try:
                with sqlite_world.guard("finalizer", on_unreadable=on_unreadable) as run:
                    run.record(1)
                outcomes.append(run.report.outcome)
            except LedgerUnavailable as error:
                outcomes.append(error)

    class Dropping(Pool):
        def read(self, timeout):
            Finalized()
            return super().read(timeout)

    with sqlite_world.guard(source=Dropping(), settle=0) as run:
        pass
    assert run.report.outcome == "succeeded"
    assert len(outcomes) == 2
    if on_unreadable == "abort":
        assert all("finalizer" in str(outcome) for outcome in outcomes)
    else:
        assert outcomes == ["succeeded"] * 2
    sqlite_world.log.lines[:] = [line for line in sqlite_world.log.lines if line[1] == run.id]
    assert sqlite_world.wrong() is None


def test_an_exception_of_the_collectors_making_stays_with_it(sqlite_world):
    """Entries that die in the engine's threads, in a task, in a thread that ends."""

    async def task():
        drop_a_started_generator(sqlite_world)
        async with sqlite_world.guard():
            gc.collect()

    asyncio.run(task())
    in_thread(drop_a_started_generator, sqlite_world)()
    engine().service.put(gc.collect)
    assert sqlite_world.wrong() is None


@pytest.mark.usefixtures("switching_all_the_time")
def test_one_guard_shared_by_threads_that_switch_all_the_time(sqlite_world):
    """Nested, at once, and with exceptions: each block gets its own run, and its own report."""
    shared = sqlite_world.guard()
    barrier = threading.Barrier(8)

    def work(seed):
        chance = random.Random(seed)
        barrier.wait(30)
        for _ in range(30):
            try:
                with shared as outer:
                    if chance.random() < 0.3:
                        with shared as inner:
                            pass
                        assert inner is not outer
                        assert inner.report.outcome == "succeeded"
                        assert not outer._life.over
                    if chance.random() < 0.3:
                        raise KeyError(seed)
                    assert not outer._life.over
            except KeyError as error:
                assert error.args == (seed,)
                assert outer.report.outcome == "failed"
            else:
                assert outer.report.outcome == "succeeded"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert not shared._open
    assert sqlite_world.wrong() is None


def test_a_shared_guard_one_of_whose_threads_is_interrupted_on_its_way_out(sqlite_world, monkeypatch):
    """The other's run is the other's: it goes on."""
    shared = sqlite_world.guard()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with shared as run:
            inside.set()
            leave.wait(30)
            assert not run._life.over
        return run.report.outcome

    join = in_thread(other)
    assert inside.wait(30)
    let_go = type(shared)._let_go
    monkeypatch.setattr(
        type(shared), "_let_go", lambda self, *args: [let_go(self, *args), (_ for _ in ()).throw(KeyboardInterrupt)]
    )
    with pytest.raises(KeyboardInterrupt), shared:
        pass
    monkeypatch.undo()
    leave.set()
    assert join() == "succeeded"


def test_open_runs_that_are_ended_from_outside_are_left_by_their_own_blocks(sqlite_world):
    """A signal of the orchestrator's ends all runs; the blocks of other threads leave later, and find their own."""
    shared = sqlite_world.guard()
    inside = threading.Barrier(3)
    leave = threading.Event()

    def work(name):
        with shared as run:
            run.check()
            inside.wait(30)
            leave.wait(30)
            with pytest.raises(LeaseLost, match="was closed from outside"):
                run.check()
        return run.report.outcome

    joins = [in_thread(work, name) for name in "ab"]
    inside.wait(30)
    engine().settle_open_runs(5)
    assert until(lambda: not sqlite_world.holds())
    leave.set()
    assert [join() for join in joins] == ["cancelled"] * 2
    assert sqlite_world.wrong() is None


def test_no_signal_reaches_the_timer():
    """One that comes when the time to wait is over, after Ctrl-Z and `fg`, makes CPython's queue wait for ever: no lease is renewed."""
    timer, masks = Timer(), SimpleQueue()
    timer.start()
    timer.later(0, lambda: masks.put(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    assert {signal.SIGCONT, signal.SIGTSTP, signal.SIGTERM, signal.SIGALRM} <= masks.get(timeout=20)


def test_a_signal_handler_that_outlasts_the_wait_does_not_make_it_endless():
    """As every signal does that comes when the time is over: after Ctrl-Z and `fg`, for one."""
    before = signal.signal(signal.SIGALRM, lambda *_: threading.Event().wait(0.3))
    rescued = threading.Timer(10, lambda: (late.append(True), ticket.finish()))
    late, ticket = [], Ticket()
    try:
        rescued.start()
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        ticket.wait(0.1)
    finally:
        signal.signal(signal.SIGALRM, before)
        rescued.cancel()
    assert not late
