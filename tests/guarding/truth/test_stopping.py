"""A runaway of each kind is stopped, its clean-up runs, and the report says so; a warning interrupts nothing."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import trio

from creditguard import BudgetExceeded, current_run, guard

from .conftest import WATCH, until

GRACE = 1.0
"""Seconds that a stop may take on a busy machine, a watch interval included."""
WARN = {"budget": 10, "watch": WATCH, "on_overrun": "warn"}
STOP = {"budget": 10, "watch": WATCH, "on_overrun": "stop"}


@pytest.fixture(autouse=True)
def plenty(gateway):
    gateway.set_credits(1_000_000)


@pytest.fixture(params=["asyncio", "trio"])
def framework(request):
    return request.param


def drive(framework, function, *arguments):
    if framework == "trio":
        return trio.run(function, *arguments)
    return asyncio.run(function(*arguments))


async def pause(framework, seconds=0.01):
    if framework == "trio":
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def assert_stopped(run, started, cleaned):
    assert time.monotonic() - started < WATCH + GRACE
    assert cleaned == ["cleaned"]
    report = run.report
    assert (report.outcome, report.stopped, report.over_budget) == ("cancelled", True, True)


# Stop


@pytest.mark.parametrize("records", [True, False])
def test_a_synchronous_job_with_checkpoints(gateway, records):
    cleaned, started = [], time.monotonic()
    with pytest.raises(BudgetExceeded) as caught, guard("runaway", **STOP) as run:
        try:
            while True:
                gateway.drain(5)
                if records:
                    run.record(5)
                run.check()
                time.sleep(0.01)
        finally:
            cleaned.append("cleaned")
    assert_stopped(run, started, cleaned)
    assert (caught.value.budget, caught.value.job, caught.value.run_id) == (10, "runaway", run.id)
    assert caught.value.spent > 10


def test_a_record_over_the_budget_stops_at_once_and_needs_no_watch(gateway):
    with pytest.raises(BudgetExceeded), guard("runaway", budget=10, on_overrun="stop") as run:
        run.record(10)
        run.check()
        run.record(1)
        assert run.stopped
        run.check()
    assert run.report.stopped


def test_a_synchronous_job_without_checkpoints_is_told(gateway):
    cleaned, started, stop, told = [], time.monotonic(), threading.Event(), []

    def tell(error):
        told.append((error, threading.current_thread().name))
        stop.set()

    with guard("runaway", **STOP) as run:
        run.on_overrun(lambda _: 1 / 0)  # whose failure is nobody's loss
        run.on_overrun(tell)
        while not stop.wait(0.01):
            gateway.drain(5)
        cleaned.append("cleaned")
        late = []
        run.on_overrun(late.append)
        assert len(late) == 1
    assert time.monotonic() - started < WATCH + GRACE
    ((error, thread),) = told
    assert isinstance(error, BudgetExceeded)
    assert thread == "creditguard"
    assert (run.report.outcome, run.report.stopped, run.report.over_budget) == ("succeeded", True, True)
    after = []
    run.on_overrun(after.append)
    assert after == []


def test_a_decorated_function(gateway):
    cleaned, started, runs = [], time.monotonic(), []

    @guard(**STOP)
    def job():
        runs.append(current_run())
        try:
            while True:
                gateway.drain(5)
                current_run().check()
                time.sleep(0.01)
        finally:
            cleaned.append("cleaned")

    with pytest.raises(BudgetExceeded):
        job()
    assert_stopped(runs[0], started, cleaned)


@pytest.mark.parametrize("records", [True, False])
def test_an_async_block(gateway, framework, records):
    cleaned, started, runs = [], time.monotonic(), []

    async def job():
        with pytest.raises(BudgetExceeded) as caught:
            async with guard("runaway", **STOP) as run:
                runs.append(run)
                try:
                    while True:
                        gateway.drain(5)
                        if records:
                            run.record(5)
                        await pause(framework)
                finally:
                    if framework == "asyncio":
                        await asyncio.sleep(0.01)  # a clean-up may await
                    else:
                        with trio.CancelScope(shield=True):
                            await trio.sleep(0.01)
                    cleaned.append("cleaned")
        assert type(caught.value.__cause__).__name__ in {"CancelledError", "Cancelled"}
        await pause(framework)  # the task itself is not cancelled
        if framework == "asyncio":
            assert getattr(asyncio.current_task(), "cancelling", lambda: 0)() == 0

    drive(framework, job)
    assert_stopped(runs[0], started, cleaned)


def test_a_coroutine_function(gateway, framework):
    cleaned, started, runs = [], time.monotonic(), []

    @guard(**STOP)
    async def job():
        runs.append(current_run())
        try:
            while True:
                gateway.drain(5)
                await pause(framework)
        finally:
            cleaned.append("cleaned")

    with pytest.raises(BudgetExceeded):
        drive(framework, job)
    assert_stopped(runs[0], started, cleaned)


def test_a_generator(gateway):
    cleaned, started, runs = [], time.monotonic(), []

    @guard(**STOP)
    def job():
        runs.append(current_run())
        try:
            while True:
                gateway.drain(5)
                yield 1
        finally:
            cleaned.append("cleaned")

    with pytest.raises(BudgetExceeded):
        for _ in job():
            time.sleep(0.01)
    assert_stopped(runs[0], started, cleaned)


@pytest.mark.parametrize("inside", [True, False])
def test_an_async_generator(gateway, framework, inside):
    """Stopped between two items, or in the middle of a step that never ends."""
    cleaned, started, runs = [], time.monotonic(), []

    @guard(**STOP)
    async def job():
        runs.append(current_run())
        try:
            while True:
                gateway.drain(5)
                await pause(framework, 0.005)
                if not inside:
                    yield 1
        finally:
            cleaned.append("cleaned")

    async def consume():
        async for _ in job():
            await pause(framework)

    with pytest.raises(BudgetExceeded):
        drive(framework, consume)
    assert_stopped(runs[0], started, cleaned)


def test_a_step_that_was_not_reached_by_the_cancellation_is_told_at_the_next(gateway, framework):
    told = []

    @guard(budget=10, on_overrun="stop")
    async def job():
        yield 1
        current_run().record(11)  # and there is no await left in this step
        try:
            yield 2
        except BudgetExceeded as error:
            told.append(error)
            raise

    async def consume():
        async for _ in job():
            pass

    with pytest.raises(BudgetExceeded):
        drive(framework, consume)
    assert len(told) == 1


def test_low_credits_stop_a_run_whoever_spent_them(gateway, events):
    gateway.set_credits(100)
    careful = guard("careful", budget=20, watch=WATCH, stop_below=50)
    with guard("somebody", budget=1), pytest.raises(BudgetExceeded) as caught, careful as run:
        gateway.drain(60)
        assert until(lambda: run.stopped)
        run.check()
    assert (caught.value.balance, caught.value.stop_below) == (40, 50)
    assert str(caught.value) == "careful: 40 credits are left on the account, fewer than 50"
    overruns = {event.cause: event for event in events.all("overrun")}
    assert overruns["stop_below"].stopping
    assert not overruns["budget"].stopping
    assert (run.report.stopped, run.report.over_budget) == (True, None)


def test_an_upper_bound_stops_nothing(gateway, events):
    with guard("somebody", budget=1), guard("innocent", **STOP) as run:
        gateway.drain(60)
        assert until(lambda: events.all("overrun"))
        run.check()
        run.record(11)
        assert run.stopped  # now it is sure
    assert len(events.all("overrun")) == 2


def test_a_job_that_swallows_it_is_reported_all_the_same(gateway):
    with guard("stubborn", **STOP) as run:
        for _ in range(3):
            try:
                gateway.drain(20)
                until(lambda: run.stopped)
                run.check()
            except Exception:
                pass
    assert (run.report.outcome, run.report.stopped, run.report.over_budget) == ("succeeded", True, True)


def test_a_generator_that_swallows_it_goes_on_and_is_reported(gateway):
    runs, swallowed = [], []

    @guard(budget=10, on_overrun="stop")
    def stubborn():
        runs.append(current_run())
        current_run().record(11)
        for number in range(4):
            try:
                yield number
            except Exception as error:
                swallowed.append(error)
                yield "swallowed"

    assert list(stubborn()) == [0, "swallowed", 1, 2, 3]
    assert len(swallowed) == 1
    assert (runs[0].report.outcome, runs[0].report.stopped, runs[0].report.over_budget) == ("succeeded", True, True)


def test_an_async_job_that_swallows_its_cancellation(gateway, framework):
    runs = []

    async def job():
        async with guard("stubborn", budget=10, on_overrun="stop") as run:
            runs.append(run)
            run.record(11)
            try:
                await pause(framework, 1)
            except BaseException:
                pass
            return "done"

    assert drive(framework, job) == "done"
    assert (runs[0].report.outcome, runs[0].report.stopped, runs[0].report.over_budget) == ("succeeded", True, True)


# What is not ours stays what it is


def test_the_jobs_own_exception_in_its_clean_up_comes_out(gateway, framework):
    async def job():
        async with guard("runaway", budget=10, on_overrun="stop") as run:
            run.record(11)
            try:
                await pause(framework, 1)
            finally:
                raise ValueError("clean-up")

    with pytest.raises(ValueError, match="clean-up"):
        drive(framework, job)


def test_a_cancellation_from_elsewhere_stays_one(gateway):
    runs = []

    async def job():
        async with guard("calm", **STOP) as run:
            runs.append(run)
            await asyncio.sleep(5)

    async def main():
        task = asyncio.ensure_future(job())
        while not runs:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (runs[0].report.outcome, runs[0].report.stopped) == ("cancelled", False)


def test_both_at_once_is_a_cancellation(gateway):
    async def job():
        async with guard("runaway", budget=10, on_overrun="stop") as run:
            run.record(11)
            asyncio.current_task().cancel()
            await asyncio.sleep(5)

    async def main():
        with pytest.raises((asyncio.CancelledError, BudgetExceeded)) as caught:
            await asyncio.ensure_future(job())
        return caught.type

    assert asyncio.run(main()) in {asyncio.CancelledError, BudgetExceeded}


def test_a_timeout_of_the_jobs_own_is_left_alone(gateway, framework):
    async def job():
        async with guard("calm", **STOP):
            if framework == "trio":
                with trio.move_on_after(0.01):
                    await trio.sleep(5)
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.sleep(5), 0.01)
        return "done"

    assert drive(framework, job) == "done"


def test_a_nursery_in_the_job_is_cancelled_with_it(gateway):
    cleaned = []

    async def child():
        try:
            await trio.sleep(5)
        finally:
            cleaned.append(1)

    async def job():
        async with guard("runaway", **STOP), trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child)
            gateway.drain(20)

    with pytest.raises(BudgetExceeded):
        trio.run(job)
    assert cleaned == [1, 1]


def test_what_else_a_nursery_raised_comes_out(gateway):
    async def broken():
        try:
            await trio.sleep(5)
        finally:
            raise ValueError("clean-up")

    runs = []

    async def job():
        async with guard("runaway", **STOP) as run:
            runs.append(run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(broken)
                nursery.start_soon(trio.sleep, 5)
                gateway.drain(20)

    with pytest.RaisesGroup(ValueError):
        trio.run(job)
    assert (runs[0].report.stopped, runs[0].report.outcome) == (True, "failed")


def test_a_guard_that_is_left_in_another_task(gateway):
    """As asynchronous fixtures do."""
    stack = guard("fixture", **STOP)

    async def main():
        run = await asyncio.ensure_future(stack.__aenter__())
        await asyncio.ensure_future(stack.__aexit__(None, None, None))
        return run

    assert asyncio.run(main()).report.outcome == "succeeded"


# Warn


def spend(gateway, times=8):
    for _ in range(times):
        gateway.drain(20)
        time.sleep(0.03)


def test_a_warning_interrupts_no_synchronous_job(gateway, events):
    called = []
    with guard("over", **WARN) as run:
        run.on_overrun(called.append)
        spend(gateway)
        run.record(500)
        run.check()
        assert not run.stopped
    assert called == []
    assert len(events.all("overrun")) == 1
    assert (run.report.outcome, run.report.stopped, run.report.over_budget) == ("succeeded", False, True)


def test_a_warning_interrupts_no_function_and_no_generator(gateway, events):
    @guard(**WARN)
    def function():
        spend(gateway)
        current_run().check()
        return "done"

    @guard(**WARN)
    def generator():
        for number in range(8):
            spend(gateway, 1)
            yield number

    assert function() == "done"
    assert list(generator()) == list(range(8))
    assert [event.stopped for event in events.all("finished")] == [False, False]
    assert [event.over_budget for event in events.all("finished")] == [True, True]


def test_a_warning_interrupts_no_asynchronous_job(gateway, events, framework):
    async def spend_slowly():
        for _ in range(8):
            gateway.drain(20)
            await pause(framework, 0.03)

    @guard(**WARN)
    async def coroutine():
        await spend_slowly()
        return "done"

    @guard(**WARN)
    async def generator():
        for number in range(4):
            await spend_slowly()
            yield number

    async def main():
        async with guard("over", **WARN):
            await spend_slowly()
        return await coroutine(), [number async for number in generator()]

    assert drive(framework, main) == ("done", [0, 1, 2, 3])
    assert [event.stopped for event in events.all("finished")] == [False] * 3
    assert len(events.all("overrun")) == 3
