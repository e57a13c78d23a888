"""Twenty thousand guards: what they leave of memory, threads and descriptors; and a long life of loops and interrupted callers."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attack_world import until

from creditguard.engine.engine import engine

pytestmark = [pytest.mark.stress, pytest.mark.timeout(900)]


TASKS = Path("/proc/self/task")


class Leak(Exception):
    pass


def measured():
    gc.collect()
    return {
        "memory, KiB": tracemalloc.get_traced_memory()[0] // 1024,
        "objects": len(gc.get_objects()),
        "threads": len(list(TASKS.iterdir())) if TASKS.is_dir() else threading.active_count(),
        "descriptors": len(list(Path("/dev/fd").iterdir())),
    }


def by_block(world):
    with world.guard():
        pass


def by_failing_block(world):
    try:
        with world.guard():
            raise Leak
    except Leak:
        pass


def by_generator(world):
    @world.guard()
    def job():
        yield 1
        yield 2

    next(job())


def by_loop(world):
    async def main():
        async with world.guard():
            pass

    asyncio.run(main())


def by_refusal(world):
    try:
        with world.guard(budget=10**9):
            pytest.fail("it was admitted")
    except Exception as error:
        assert "credits" in str(error)


def test_twenty_thousand_guards_leave_nothing(world):
    """Half of them by four threads at once, on either ledger."""
    ways = [by_block, by_failing_block, by_generator, by_loop, by_refusal]

    def some(count):
        for number in range(count):
            ways[number % len(ways)](world)
            if number % 100 == 99:
                world.log.clear()

    some(500)
    tracemalloc.start()
    # Now and then the interpreter makes its table of names anew, in one block of 2 MB: let it be now.
    for number in range(100_000):
        sys.intern(str(number))
    some(500)
    assert until(lambda: not engine().runs)
    before = measured()
    some(10_000)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(some, [2_500] * 4))
    world.log.clear()
    assert until(lambda: not engine().runs)
    after = measured()
    tracemalloc.stop()
    print(f"\n{before}\n{after}\npeak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} KiB")
    assert after["memory, KiB"] - before["memory, KiB"] < 512
    assert after["objects"] - before["objects"] < 2_000
    assert after["threads"] - before["threads"] <= 2
    assert after["descriptors"] - before["descriptors"] <= 2
    assert world.wrong() is None
