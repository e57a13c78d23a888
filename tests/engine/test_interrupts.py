"""Interrupts at random instants of entering and leaving, by a real timer: what a signal handler raises is the host's, and comes out."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attack_world import enter_and_leave, in_thread, until

from creditguard.engine import lifecycle
from creditguard.engine.engine import engine
from creditguard.engine.lifecycle import Lifecycle
from creditguard.engine.performance import Performance

pytestmark = pytest.mark.timeout(900)


class TimeIsUp(Exception):
    """Celery's soft time limit, and its like."""


@pytest.fixture(params=[KeyboardInterrupt, TimeIsUp, TimeoutError])
def alarm(request):
    """A timer whose handler raises; what it has raised is in `raised`. TimeoutError is what a network error looks like, too."""
    raised = []

    def handler(*_):
        raised.append(request.param("time is up"))
        raise raised[-1]

    before = signal.signal(signal.SIGALRM, handler)
    yield raised
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def length_of_a_run(world, enter_and_leave):
    """The shortest of some: on a busy machine the others say more of its load."""

    def once():
        begun = time.perf_counter()
        enter_and_leave(world)
        return time.perf_counter() - begun

    return min(once() for _ in range(20))


def block(world):
    with world.guard() as run:
        run.record(1)


def function(world):
    @world.guard()
    def job():
        pass

    job()


def generator(world):
    @world.guard()
    def job():
        yield 1
        yield 2

    items = job()
    next(items)
    items.close()


JOBS = [block, function, generator]


def attack(world, raised, tries, seed=0):
    """Interrupt so many times; how many hit."""
    chance, lengths = random.Random(seed), {job: length_of_a_run(world, job) for job in JOBS}
    assert world.wrong() is None
    hits = 0
    for number in range(tries):
        job = chance.choice(JOBS)
        came_out = None
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, lengths[job] * 1.3))
            job(world)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            came_out = error
        if raised:
            hits += 1
            assert came_out is raised.pop(), f"try {number}: {came_out!r} came out"
            assert not raised
        else:
            assert came_out is None
        came_out = None
        if number % 8 == 7 or number == tries - 1:
            assert (wrong := world.wrong()) is None, f"try {number}: {wrong}"
    return hits


def test_whenever_an_interrupt_comes_nothing_is_left_behind(world, alarm):
    hits = attack(world, alarm, 200)
    print(f"\n{hits} hits")
    assert hits > 20


@pytest.mark.stress
def test_however_many_interrupts_come_nothing_is_left_behind(world, alarm):
    """Six of these: 20,400 tries."""
    hits = attack(world, alarm, 3400, seed=1)
    print(f"\n{hits} hits")
    assert hits > 700


def test_interrupts_that_come_twice(sqlite_world, alarm):
    """The second comes while the first is being dealt with: settling is cut short, and then left to itself."""
    sqlite_world.pool.delay = 0.05
    chance = random.Random(3)
    for number in range(20):
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.15), 0.004)
            block(sqlite_world)
        except BaseException as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert error in alarm
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        error = None
        alarm.clear()
        assert (wrong := sqlite_world.wrong()) is None, f"try {number}: {wrong}"


def test_a_second_interrupt_before_the_first_has_cut_anything_short(sqlite_world, alarm, monkeypatch):
    """It comes at the first instruction of the handler. Nobody waits any more, and so nothing waits for the account to settle."""
    monkeypatch.setattr(Lifecycle, "hurry", lambda _: signal.raise_signal(signal.SIGALRM))
    with pytest.raises(BaseException) as caught, sqlite_world.guard(settle=600):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert caught.value is alarm.pop()
    alarm.clear()
    assert sqlite_world.wrong() is None


@pytest.mark.parametrize("side", ["entering", "leaving"])
def test_an_interrupt_while_another_thread_takes_up_what_it_breaks_off(sqlite_world, monkeypatch, side):
    """Who is gone says so in one service thread, while another one makes ready what is to be broken off."""
    guard = sqlite_world.guard(wait=600, budget=10**9) if side == "entering" else sqlite_world.guard(settle=600)
    seen = []

    def performance(flow, parts, context, ticket, *more):
        (life,) = [life for life in engine().runs.values() if ticket in (life.entering, life.leaving)]
        if ticket is getattr(life, side):
            life.vanish()
            seen.append(life)
        return Performance(flow, parts, context, ticket, *more)

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "Performance", performance)
        entered = in_thread(enter_and_leave, guard)
        assert until(lambda: seen and not sqlite_world.open_runs() and not sqlite_world.holds())
        entered()
    assert sqlite_world.wrong() is None


def test_a_report_that_is_cut_short_says_so(sqlite_world, alarm):
    """An interrupt at exit: no figure, but a report, and at once."""
    with pytest.raises(BaseException) as caught, sqlite_world.guard() as run:
        sqlite_world.pool.delay = 1.0
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert caught.value is alarm.pop()
    assert until(lambda: run._life.report)
    assert run.report.basis == "unknown"
    assert sqlite_world.wrong() is None


def test_a_guard_inside_of_a_signal_handler_while_its_thread_waits_in_the_engine(world):
    entered = []

    def handler(*_):
        with world.guard("handler") as run:
            pass
        entered.append(run.report.outcome)

    before = signal.signal(signal.SIGALRM, handler)
    world.pool.delay = 0.02
    try:
        for number in range(30):
            signal.setitimer(signal.ITIMER_REAL, 0.002 * (number + 1))
            with world.guard():
                pass
            until(lambda number=number: len(entered) > number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert entered == ["succeeded"] * 30
    assert world.wrong() is None


COLD = """
import signal, sys, time
from creditguard import guard
sys.path.append({here!r})
from attack_world import World
world, entered = World("sqlite:///{ledger}"), []

def handler(*_):
    with world.guard("handler") as run:
        pass
    entered.append(run.report.outcome)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, {after})
with world.guard():
    pass
while not entered:
    time.sleep(0.01)
assert entered == ["succeeded"] and world.wrong() is None
"""


def test_a_guard_inside_of_a_signal_handler_while_the_first_guard_imports_what_it_needs(tmp_path):
    """It would find half of a module, were it imported in the thread that the handler runs in."""
    for number in range(12):
        run_cold(COLD, tmp_path, 0.001 + 0.015 * number)


def run_cold(program, tmp_path, after):
    """In an interpreter of its own that has compiled nothing yet, with the signal after so many seconds."""
    script = program.format(here=str(Path(__file__).parent), ledger=tmp_path / "l.db", after=after)
    environment = {**os.environ, "CREDITGUARD_TIMEOUT": "5", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), f"after {after}: {done.stderr}"


INTERRUPTED = """
import signal, sys
from creditguard import guard
sys.path.append({here!r})
from attack_world import World
world = World("sqlite:///{ledger}")

class Struck(Exception):
    pass

def handler(*_):
    raise Struck

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, {after})
try:
    with world.guard():
        pass
except Struck:
    pass
signal.setitimer(signal.ITIMER_REAL, 0)
assert world.wrong() is None, world.wrong()
"""


def test_a_signal_handler_that_raises_while_the_first_guard_imports_what_it_needs(tmp_path):
    """What is imported meanwhile is whole, the next guard gets through, and nothing is held."""
    for number in range(12):
        run_cold(INTERRUPTED, tmp_path, 0.001 + 0.015 * number)
