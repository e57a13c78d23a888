"""Tasks that are cancelled at random instants, natively and by scopes: each admitted run is reported once, and no hold stays."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time

import anyio
import anyio.lowlevel
import pytest
import trio

pytestmark = pytest.mark.timeout(900)

needs_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has neither timeout() nor TaskGroup yet")


async def block(world):
    async with world.guard() as run:
        run.record(1)
        await anyio.lowlevel.checkpoint()


async def stoppable_block(world):
    async with world.guard(on_overrun="stop"):
        await anyio.lowlevel.checkpoint()


async def coroutine(world):
    @world.guard(on_overrun="stop")
    async def job():
        await anyio.lowlevel.checkpoint()

    await job()


async def generator(world):
    @world.guard()
    async def job():
        yield 1
        await anyio.lowlevel.checkpoint()
        yield 2

    items = job()
    try:
        async for _ in items:
            pass
    finally:
        with anyio.CancelScope(shield=True):
            await items.aclose()


JOBS = [block, stoppable_block, coroutine, generator]


async def by_task_cancel(job, world, delay, chance):
    task = asyncio.create_task(job(world))
    await asyncio.sleep(delay)
    task.cancel("mine")
    try:
        await task
    except asyncio.CancelledError as error:
        of_the_job = error if sys.version_info >= (3, 11) else error.__context__  # 3.10 gives who waits for it another
        assert of_the_job.args == ("mine",)
        assert task.cancelled()
        return True
    return False


async def by_two_task_cancels(job, world, delay, chance):
    task = asyncio.create_task(job(world))
    await asyncio.sleep(delay)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(chance.choice([0, 0, 0.0002, 0.001]))
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def by_wait_for(job, world, delay, chance):
    try:
        await asyncio.wait_for(job(world), delay)
    except asyncio.TimeoutError:
        return True
    return False


async def by_timeout(job, world, delay, chance):
    try:
        async with asyncio.timeout(delay):
            await job(world)
    except TimeoutError:
        return True
    return False


async def by_task_group(job, world, delay, chance):
    class Over(Exception):
        pass

    async def sibling():
        await asyncio.sleep(delay)
        raise Over

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job(world)) for _ in range(2)]
            group.create_task(sibling())
    except BaseExceptionGroup as errors:  # noqa: F821
        assert [type(error) for error in errors.exceptions] == [Over]
        return any(task.cancelled() for task in tasks)
    return False


async def by_scope(job, world, delay, chance):
    with anyio.move_on_after(delay) as scope:
        await job(world)
    return scope.cancelled_caught


async def by_fail_after(job, world, delay, chance):
    try:
        with anyio.fail_after(delay):
            await job(world)
    except TimeoutError:
        return True
    return False


async def by_group(job, world, delay, chance):
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(job, world)
        await anyio.sleep(delay)
        group.cancel_scope.cancel()
        return group.cancel_scope.cancel_called


async def by_trio_scope(job, world, delay, chance):
    with trio.move_on_after(delay) as scope:
        await job(world)
    return scope.cancelled_caught


ASYNCIO = [by_task_cancel, by_two_task_cancels, by_wait_for, by_scope, by_fail_after, by_group]
if sys.version_info >= (3, 11):
    ASYNCIO += [by_timeout, by_task_group]
TRIO = [by_scope, by_fail_after, by_group, by_trio_scope]
CASES = [*(("asyncio", how) for how in ASYNCIO), *(("trio", how) for how in TRIO)]


async def attack(world, how, tries, seed):
    """Cancel so many times; how many hit."""
    chance, hits, lengths = random.Random(seed), 0, {}
    for job in JOBS:
        await job(world)
        begun = time.perf_counter()
        for _ in range(10):
            await job(world)
        lengths[job] = (time.perf_counter() - begun) / 10
    for number in range(tries):
        job = chance.choice(JOBS)
        hits += await how(job, world, chance.uniform(0, lengths[job] * 1.3), chance)
        if number % 10 == 9:
            wrong = await anyio.to_thread.run_sync(world.wrong)
            assert wrong is None, f"try {number}: {wrong}"
    wrong = await anyio.to_thread.run_sync(world.wrong)
    assert wrong is None, wrong
    return hits


def run(backend, world, how, tries, seed):
    return anyio.run(attack, world, how, tries, seed, backend=backend)


@pytest.mark.parametrize(("backend", "how"), CASES, ids=str)
def test_whenever_a_task_is_cancelled_nothing_is_left_behind(sqlite_world, backend, how):
    hits = run(backend, sqlite_world, how, 40, 0)
    print(f"\n{backend} {how.__name__}: {hits} hits")
    assert hits > 5


@pytest.mark.stress
@pytest.mark.parametrize(("backend", "how"), CASES, ids=str)
def test_however_often_tasks_are_cancelled_nothing_is_left_behind(world, backend, how):
    """Twelve ways and two ledgers: 3,600 tries."""
    hits = run(backend, world, how, 150, 1)
    print(f"\n{backend} {how.__name__}: {hits} hits")
    assert hits > 20


def test_cancelled_while_the_balance_is_read(sqlite_world):
    """Slow readings: the cancellation comes in the middle of entering, and of leaving, and it does not wait for either."""
    sqlite_world.pool.delay = 0.2

    async def main():
        for delay in (0.05, 0.25, 0.3, 0.35):
            task = asyncio.create_task(block(sqlite_world))
            await asyncio.sleep(delay)
            begun = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - begun < 3

    asyncio.run(main())
    assert sqlite_world.wrong() is None


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the loop that is not closed
@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_ends_with_guards_open(sqlite_world, closed):
    """Tasks that nobody cancels or awaits any more. They die with their loop, and what the engine has of them must not keep either alive."""

    async def stay():
        async with sqlite_world.guard():
            await asyncio.sleep(0.002)

    def abandon():
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(stay()) for _ in range(3)]
        loop.run_until_complete(asyncio.sleep(delay))
        if closed:
            loop.close()
        for task in tasks:
            task._log_destroy_pending = False

    chance = random.Random(4)
    for number in range(20):
        delay = chance.uniform(0, 0.02)
        abandon()
        assert (wrong := sqlite_world.wrong()) is None, f"try {number}: {wrong}"
    gc.collect()


def test_a_guarded_coroutine_that_is_closed_in_the_middle(sqlite_world):
    """As a loop does with what it cannot run any more. A coroutine that is closed must not await, or it is an error."""

    @sqlite_world.guard()
    async def job():
        await anyio.sleep(100)

    async def plain():
        async with sqlite_world.guard():
            await anyio.sleep(100)

    for make in (job, plain):

        async def drive(make=make):
            task = asyncio.ensure_future(make())
            while not sqlite_world.holds():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            coroutine = task.get_coro()
            coroutine.close()
            task._log_destroy_pending = False

        asyncio.run(drive())
        assert sqlite_world.wrong() is None
