"""What events see of the caller, and when they go out: `admitted` before the job's first line, `finished` before its block is left."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
import structlog
from attack_world import Log

from creditguard.sinks.host import HostSink

pytestmark = pytest.mark.timeout(120)

TASK = contextvars.ContextVar("task", default=None)


class Ordered(Log):
    """Events and what the job does, in one list; each event with the context that it saw. `delays`: a sink that takes its time."""

    def __init__(self, delays=None):
        super().__init__()
        self.delays = delays
        self.order = []

    def emit(self, event):
        if self.delays:
            time.sleep(self.delays.uniform(0, 0.01))
        self.order.append((event.fields["run_id"], event.name.removeprefix("creditguard."), TASK.get()))
        super().emit(event)


def of(log, run_id):
    return [line for line in log.order if line[0] == run_id]


def test_threads(world):
    log = Ordered(random.Random(1))

    def work(number):
        TASK.set(number)
        with world.guard(sink=log, thresholds=(1,), watch=30) as run:
            log.order.append((run.id, "job", number))
            run.record(1)
        log.order.append((run.id, "left", number))
        return run.id, number

    with ThreadPoolExecutor(8) as pool:
        for run_id, number in pool.map(work, range(40)):
            names = [name for _, name, _ in of(log, run_id)]
            assert names[:2] == ["admitted", "job"]
            assert names[-2:] == ["finished", "left"]
            assert set(names[2:-2]) <= {"threshold", "overrun"}
            assert {seen for _, _, seen in of(log, run_id)} == {number}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks(world, backend):
    log = Ordered(random.Random(2))
    numbers = {}

    async def work(number):
        TASK.set(number)
        async with world.guard(sink=log) as run:
            numbers[run.id] = number
            log.order.append((run.id, "job", number))
        log.order.append((run.id, "left", number))

    async def main():
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(work, number)

    anyio.run(main, backend=backend)
    assert len(numbers) == 40
    for run_id, number in numbers.items():
        assert of(log, run_id) == [(run_id, name, number) for name in ("admitted", "job", "finished", "left")]


def test_a_context_that_is_changed_after_entering_is_the_one_that_was_entered(world):
    log = Ordered()
    TASK.set("before")
    with world.guard(sink=log):
        TASK.set("meanwhile")
    assert [seen for _, _, seen in log.order] == ["before", "before"]
    assert TASK.get() == "meanwhile"


def test_a_sink_that_sets_a_context_variable_changes_nobody_elses(world):
    class Setting(Log):
        def emit(self, event):
            TASK.set("the sink's")
            super().emit(event)

    TASK.set("mine")
    log = Ordered()
    with world.guard(sink=Setting()), world.guard(sink=log):
        assert TASK.get() == "mine"
    assert {seen for _, _, seen in log.order} == {"mine"}


def test_structlogs_context_variables(world):
    captured = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, captured])
    try:

        async def work(number):
            with structlog.contextvars.bound_contextvars(batch=number):
                async with world.guard(sink=HostSink()) as run:
                    pass
            return run.id

        async def main():
            return await asyncio.gather(*(work(number) for number in range(20)))

        runs = asyncio.run(main())
        with structlog.contextvars.bound_contextvars(batch="thread"), world.guard(sink=HostSink()) as run:
            pass
    finally:
        structlog.reset_defaults()
    seen = {}
    for entry in captured.entries:
        seen.setdefault(entry["run_id"], []).append((entry["event"], entry["batch"]))
    both = ["creditguard.admitted", "creditguard.finished"]
    assert seen == {
        **{run_id: [(name, number) for name in both] for number, run_id in enumerate(runs)},
        run.id: [(name, "thread") for name in both],
    }


def test_a_refusal_is_logged_before_it_is_raised(world):
    log = Ordered(random.Random(3))
    for _ in range(20):
        with pytest.raises(Exception, match="credits"), world.guard(sink=log, budget=2_000_000):
            pytest.fail("it was admitted")
        log.order.append((log.order[-1][0], "raised", None))
    assert [name for _, name, _ in log.order] == ["refused", "raised"] * 20


def test_events_of_one_run_keep_their_order_among_ten_thousand(world):
    """Recorded by many threads, let out by whichever of the engine's has time."""
    log = Ordered()

    def work(_):
        with world.guard(sink=log, budget=100, watch=30, thresholds=(0.25, 0.5, 0.75, 1)) as run:
            threads = [threading.Thread(target=lambda: [run.record(1) for _ in range(50)]) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return run.id

    with ThreadPoolExecutor(8) as pool:
        for run_id in pool.map(work, range(32)):
            names = [name for _, name, _ in of(log, run_id)]
            assert names[0] == "admitted"
            assert names[-1] == "finished"
            assert names.count("threshold") == 4
