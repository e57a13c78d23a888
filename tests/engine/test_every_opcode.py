"""An exception at every opcode of the caller's side, entering and leaving, whatever the guard is used as."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from traceback import walk_tb

import pytest
import trio
import trio.lowlevel
from strike import Strike, Struck

from creditguard.engine.lifecycle import Lifecycle
from creditguard.guarding.entry import Entry

pytestmark = [
    pytest.mark.timeout(300),
    # Struck between the call of a coroutine function and the await: that is what it looks like.
    pytest.mark.filterwarnings("ignore:coroutine .*was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <coroutine:pytest.PytestUnraisableExceptionWarning"),
]


def block(world):
    with world.guard() as run:
        run.record(1)


def block_without_as(world):
    with world.guard():
        pass


def function(world):
    @world.guard()
    def job():
        return 1

    job()


def generator(world):
    @world.guard()
    def job():
        yield 1
        yield 2

    list(job())


def closed_generator(world):
    @world.guard()
    def job():
        yield 1
        yield 2

    items = job()
    next(items)
    items.close()


async def async_block(world):
    async with world.guard() as run:
        run.record(1)


async def stoppable_async_block(world):
    async with world.guard(on_overrun="stop"):
        pass


async def coroutine(world):
    @world.guard(on_overrun="stop")
    async def job():
        await asyncio.sleep(0) if not in_trio() else await trio.lowlevel.checkpoint()

    await job()


async def async_generator(world):
    @world.guard()
    async def job():
        yield 1
        yield 2

    async for _ in job():
        pass


def in_trio():
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


SYNC = [block, block_without_as, function, generator, closed_generator]
ASYNC = [async_block, stoppable_async_block, coroutine, async_generator]
# What the event loop itself calls is no frame of the task: an exception there is the loop's business, and trio dies of it.
CALLED_BY_TRIO = ("_deliver", "flush")


MOST_OPCODES = 10_000


def strike_sync(job, world, at, error):
    with Strike(at, error) as strike:
        job(world)
    return strike


def strike_asyncio(job, world, at, error):
    """What is raised in a call of the loop's own goes to its exception handler, and comes out of nothing."""
    caught = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: caught.append(context.get("exception")))
        with Strike(at, error) as strike:
            await job(world)
        return strike

    strike = asyncio.run(main())
    if strike.error in caught:
        raise strike.error
    return strike


def strike_trio(job, world, at, error):
    async def main():
        with Strike(at, error, CALLED_BY_TRIO) as strike:
            await job(world)
        return strike

    return trio.run(main)


CASES = [
    *((strike_sync, job) for job in SYNC),
    *((strike_asyncio, job) for job in ASYNC),
    *((strike_trio, job) for job in ASYNC),
]


def attack(strike, job, world, step=1, keep=False):
    """Strike at every opcode; how many there were, and what went wrong where. `keep`: the exception is kept, and with it all
    frames that it came through, as a notebook does, and whoever collects errors."""
    strike(job, world, 0, None)  # what is imported and cached at first use is not what is attacked here
    failures = []
    for at in range(1, MOST_OPCODES, step):
        error = Struck(f"at {at}")
        if sys.version_info >= (3, 13):
            strike(job, world, 0, None)  # after code that nobody traced, the first trace there misses opcodes
        try:
            strike(job, world, at, error)
        except BaseException as raised:
            wrong = None if raised is error else f"came out as {raised!r}"
        else:
            if error.__traceback__ is None:
                return at - step, failures
            wrong = "was swallowed"
        place = where(error)
        if not keep:
            error.__traceback__ = error.__context__ = None
            error = None
        if wrong := wrong or world.wrong(0.3 if keep else 2.0):
            failures.append((at, place, wrong))
            error = None
            if len(failures) > 20 or world.wrong(5.0):
                return at, failures
    return MOST_OPCODES, [(MOST_OPCODES, None, "each attack makes the next one longer: something piles up")]


def where(error):
    """The last frame of the traceback: where it was raised."""
    places = [f"{frame.f_code.co_name}:{line}" for frame, line in walk_tb(error.__traceback__)]
    return next((place for place in reversed(places) if not place.startswith("_opcode")), None)


def shown(failures):
    return "\n".join(f"opcode {at}, {place}: {wrong}" for at, place, wrong in failures)


@pytest.mark.parametrize(("strike", "job"), CASES, ids=lambda case: case.__name__)
def test_whatever_opcode_is_struck_nothing_is_left_behind(request, sqlite_world, strike, job):
    """Each of them, entering and leaving; every seventh of the longer ones, which the stress goes all through."""
    step = 1 if strike is strike_sync or request.config.getoption("-m") == "stress" else 7
    opcodes, failures = attack(strike, job, sqlite_world, step)
    print(f"\n{strike.__name__} {job.__name__}: {opcodes} opcodes")
    assert not failures, shown(failures)
    assert opcodes > 600


@pytest.mark.stress
@pytest.mark.parametrize(("strike", "job"), CASES[len(SYNC) :], ids=lambda case: case.__name__)
def test_whatever_opcode_of_a_task_is_struck_nothing_is_left_behind(sqlite_world, strike, job):
    opcodes, failures = attack(strike, job, sqlite_world)
    print(f"\n{strike.__name__} {job.__name__}: {opcodes} opcodes")
    assert not failures, shown(failures)


def test_an_attack_on_a_broken_handler_is_seen(sqlite_world, monkeypatch):
    """Without the call that says that the caller is gone; the backstop makes the same one."""
    monkeypatch.setattr(Lifecycle, "vanish", lambda *_: None)
    _, failures = attack(strike_sync, block, sqlite_world, 20)
    assert any("holds stay" in wrong for _, _, wrong in failures)


def test_an_attack_on_a_handler_that_replaces_the_exception_is_seen(sqlite_world, monkeypatch):
    def close(self, outcome):
        try:
            self.run._close(outcome)
        except Exception:
            self.gone()

    monkeypatch.setattr(Entry, "close", close)
    _, failures = attack(strike_sync, block, sqlite_world, 20)
    assert any("was swallowed" in wrong for _, _, wrong in failures)


@pytest.mark.stress
@pytest.mark.parametrize("job", [block, function])
def test_an_exception_that_is_kept_keeps_no_hold(sqlite_world, job):
    """Its traceback has the frames, and these have the entry, so that the backstop does not fall: the handlers alone take the hold back. They
    do not reach the return from `__enter__`, and the beginning of `__exit__`."""
    opcodes, failures = attack(strike_sync, job, sqlite_world, keep=True)
    print(f"\n{job.__name__}: {len(failures)} of {opcodes} opcodes: {shown(failures)}")
    assert {place.partition(":")[0] for _, place, _ in failures} <= {"__enter__", "__exit__"}
    assert len(failures) <= 4


@pytest.mark.stress
def test_what_a_guard_that_lives_on_leaves_behind(sqlite_world):
    """The guard of a module is entered again and again, and it keeps its runs: what `with` calls next must find them. Where neither of its
    handlers reaches (the return from `__enter__`, the beginning of `__exit__`) the hold stays, until the process ends."""
    shared = sqlite_world.guard()

    def job(world):
        with shared:
            pass

    strike_sync(job, sqlite_world, 0, None)
    left = []
    for at in count(1):
        error = Struck(f"at {at}")
        try:
            strike_sync(job, sqlite_world, at, error)
        except Struck:
            pass
        else:
            break
        place = where(error)
        error.__traceback__ = error.__context__ = None
        if sqlite_world.wrong(0.3):
            left.append(place)
            for entry in list(shared._open.values()):
                entry.gone()
            shared._open.clear()
            assert sqlite_world.wrong() is None
    print(f"\n{len(left)} of {at - 1} opcodes: {left}")
    assert {place.partition(":")[0] for place in left} <= {"__enter__", "__exit__"}
    assert len(left) <= 4
