"""`@guard(...)` on every kind of function, and how it keeps out of their way."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import pickle
from functools import partial
from types import SimpleNamespace

import anyio
import pytest
import trio
import trio.lowlevel

from creditguard import ConfigurationError, InsufficientCredits, current_run, guard
from creditguard.ledgers import open_ledger


def nowhere():
    """Whether this code runs outside of any guarded run."""
    try:
        current_run()
    except LookupError:
        return True
    return False


@guard(budget=lambda rows, each=2: each * len(rows), shrink=False)
def plain(rows: list[int], each: int = 2) -> int:
    """Its doc."""
    current_run().record(each * len(rows))
    return len(rows)


@guard(budget=lambda rows: 2 * len(rows), shrink=False)
async def coroutine(rows):
    await asyncio.sleep(0)
    current_run().record(1)
    return len(rows)


@guard(budget=30, shrink=False)
def generator(count):
    received = []
    for number in range(count):
        current_run().record(1)
        received.append((yield number))
    return received


@guard(budget=30, shrink=False)
async def async_generator(count):
    for number in range(count):
        current_run().record(1)
        yield number
        await asyncio.sleep(0)


def test_functions_stay_what_they_are():
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert not inspect.iscoroutinefunction(plain)
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Its doc."
    assert str(inspect.signature(plain)) == "(rows: 'list[int]', each: 'int' = 2) -> 'int'"


def test_a_budget_is_worked_out_from_the_calls_own_arguments(gateway, events):
    assert plain([1, 2, 3]) == 3
    assert events.last("admitted").budget == 6
    assert plain([1, 2], each=5) == 2
    assert events.last("finished").budget == 10
    assert events.last("finished").job == "plain"
    with pytest.raises(InsufficientCredits):
        plain(list(range(100)))


def test_a_budget_that_works_out_wrong_is_told(gateway):
    wrong = guard("wrong", budget=lambda: -1)(lambda: None)
    with pytest.raises(ConfigurationError, match="the budget that budget"):
        wrong()
    broken = guard("broken", budget=lambda: 1 / 0)(lambda: None)
    with pytest.raises(ZeroDivisionError):
        broken()


def test_methods(gateway):
    class Job:
        size = 3

        @guard(budget=lambda self: self.size)
        def run(self):
            return current_run().budget

        @staticmethod
        @guard(budget=4)
        def static():
            return current_run().budget

        @classmethod
        @guard(budget=5)
        def klass(cls):
            return current_run().budget

    assert (Job().run(), Job.static(), Job.klass()) == (3, 4, 5)


def test_coroutine_functions(gateway, events):
    assert asyncio.run(coroutine([1, 2])) == 2
    assert events.last("finished").credits_recorded == 1


def test_sixteen_tasks_at_once_each_with_its_own_report(gateway, events):
    async def main():
        return await asyncio.gather(*(coroutine([1]) for _ in range(16)))

    assert asyncio.run(main()) == [1] * 16
    finished = [record for record in events.records if record.event == "creditguard.finished"]
    assert len({record.run_id for record in finished}) == 16
    assert all(record.credits_recorded == 1 for record in finished)


def test_one_guard_object_entered_by_tasks_at_once_and_nested(gateway):
    shared = guard("shared", budget=2)

    async def job():
        async with shared as outer:
            await asyncio.sleep(0.01)
            async with shared as inner:
                assert current_run() is inner
                await asyncio.sleep(0.01)
                inner.record(1)
            assert current_run() is outer
        return outer, inner

    async def main():
        return await asyncio.gather(*(job() for _ in range(16)))

    runs = [run for pair in asyncio.run(main()) for run in pair]
    assert len({run.report.run_id for run in runs}) == 32
    assert [run.report.credits_recorded for run in runs] == [None, 1] * 16


def test_a_generator_is_guarded_from_its_first_item_until_its_end(gateway, events):
    items = generator(3)
    assert events.names == []
    assert next(items) == 0
    assert events.names == ["admitted"]
    assert nowhere()
    assert items.send("a") == 1
    assert items.send("b") == 2
    with pytest.raises(StopIteration) as stop:
        items.send("c")
    assert stop.value.value == ["a", "b", "c"]
    assert events.names == ["admitted", "finished"]
    assert events.last("finished").credits_recorded == 3
    assert events.last("finished").outcome == "succeeded"


def test_a_generator_that_is_closed_half_way_settles_once(gateway, events):
    items = generator(10)
    next(items)
    next(items)
    items.close()
    items.close()
    assert events.names == ["admitted", "finished"]
    assert events.last("finished").outcome == "cancelled"
    assert events.last("finished").credits_recorded == 2


def test_a_generator_that_is_dropped_settles(gateway, events):
    items = generator(10)
    next(items)
    del items
    assert events.names == ["admitted", "finished"]


def test_exceptions_thrown_into_a_generator_reach_it(gateway, events):
    @guard(budget=1)
    def resilient():
        try:
            yield 1
        except ValueError as error:
            yield str(error)

    items = resilient()
    next(items)
    assert items.throw(ValueError("thrown in")) == "thrown in"
    assert list(items) == []
    items = resilient()
    next(items)
    with pytest.raises(KeyError):
        items.throw(KeyError("not for it"))
    assert events.last("finished").outcome == "failed"


def test_a_generator_closes_with_its_own_run_current(gateway):
    seen = []

    @guard(budget=1)
    def tidy():
        try:
            yield 1
        finally:
            seen.append(current_run())

    items = tidy()
    next(items)
    items.close()
    assert seen[0] is not None


def test_interleaved_generators_keep_their_runs_apart(gateway, events):
    first, second = generator(2), generator(3)
    for _ in zip(first, second, strict=False):
        pass
    list(second)
    counts = [record.credits_recorded for record in events.records if record.event == "creditguard.finished"]
    assert sorted(counts) == [2, 3]


def test_async_generators(gateway, events):
    async def main():
        return [number async for number in async_generator(3)]

    assert asyncio.run(main()) == [0, 1, 2]
    assert events.names == ["admitted", "finished"]
    assert events.last("finished").credits_recorded == 3


def test_an_async_generator_that_is_closed_half_way_settles_once(gateway, events):
    async def main():
        async with contextlib.aclosing(async_generator(10)) as items:
            async for number in items:
                assert nowhere()
                if number == 1:
                    break

    asyncio.run(main())
    assert events.names == ["admitted", "finished"]
    assert events.last("finished").outcome == "cancelled"


def test_values_and_exceptions_sent_into_an_async_generator_reach_it(gateway):
    @guard(budget=1)
    async def echo():
        got = None
        for _ in range(3):
            try:
                got = yield got
            except ValueError as error:
                got = str(error)

    async def main():
        items = echo()
        await items.asend(None)
        assert await items.asend("a") == "a"
        assert await items.athrow(ValueError("b")) == "b"
        await items.aclose()

    asyncio.run(main())


def test_asyncio_cancellation_comes_through_and_is_reported(gateway, events):
    async def main():
        task = asyncio.create_task(sleeper())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert events.names == ["admitted", "finished"]
    assert events.last("finished").outcome == "cancelled"
    assert events.last("finished").balance_after == 120


@guard(budget=5)
async def sleeper():
    await anyio.sleep(30)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("exit_reading", ["works", "fails"])
def test_cancel_scopes_come_through_and_are_reported(gateway, events, backend, exit_reading):
    async def main():
        with anyio.move_on_after(0.5) as scope:
            if exit_reading == "fails":
                gateway.fault(status=403, skip=1)
            await sleeper()
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    assert events.names[-1] == "finished"
    assert events.last("finished").outcome == "cancelled"
    assert (events.last("finished").balance_after is None) == (exit_reading == "fails")


def test_trio_alone(gateway, events):
    trio.run(coroutine_for_trio)
    assert events.names == ["admitted", "finished"]


@guard(budget=5)
async def coroutine_for_trio():
    await trio.lowlevel.checkpoint()


def test_cancelled_while_being_admitted_leaves_no_hold(gateway, events):
    gateway.fault(delay=3)

    async def main():
        with anyio.move_on_after(0.3):
            await sleeper()

    anyio.run(main)
    assert open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds() == []
    gateway.clear_faults()


def test_wrong_uses_are_told():
    with pytest.raises(TypeError, match=r"@guard\(budget"):

        @guard
        def bare():
            pass

    with pytest.raises(TypeError, match="functions, not a class"):
        guard(budget=1)(dict)
    with pytest.raises(TypeError, match="functions, not classmethod"):
        guard(budget=1)(classmethod(lambda cls: None))
    with pytest.raises(TypeError, match="functions, not int"):
        guard(budget=1)(42)


def engines_code(engine):
    """What an engine looks like from here: a task object, what sends it, and a decorator that wraps a user's function."""
    source = """
import functools

class Task:
    def __init__(self, function):
        @functools.wraps(function)
        def remote(*args):
            return self.send(*args)
        self.function, self.remote = function, remote

    def __call__(self, *args):
        return self.send(*args)

    def send(self, *args):
        raise AssertionError("sent")

class Pool:
    def submit(self, function):
        raise AssertionError("sent")

def with_session(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper
"""
    names = {"__name__": f"{engine}.tasks"}
    exec(source, names)
    return SimpleNamespace(**names)


def double(number=1):
    return 2 * number


@pytest.mark.parametrize("engine", ["airflow", "celery", "concurrent", "dagster", "dask", "luigi", "prefect", "ray"])
def test_around_a_task_or_what_sends_it_the_order_is_refused(engine):
    code = engines_code(engine)
    task = code.Task(double)
    of_the_users = type("double", (code.Task,), {"__module__": __name__})(double)  # as Celery's tasks are
    for what in (
        task,
        task.send,
        task.remote,
        of_the_users,
        of_the_users.send,
        code.Pool().submit,
        partial(task.send, 1),
    ):
        with pytest.raises(
            TypeError,
            match=f"this is {engine}'s own .*: put guard on the function that does the work.*@task over @guard",
        ):
            guard(budget=1)(what)


def test_a_users_own_methods_are_functions_whatever_they_belong_to(gateway):
    code = engines_code("luigi")

    class Client:
        def __call__(self):
            pass

        def double(self, number):
            return 2 * number

    class Nightly(code.Task):
        def run(self, number):
            return 2 * number

    for each in (Client().double, Nightly(double).run, code.with_session(double), code.Task(double).function):
        assert guard(budget=1)(each)(3) == 6
    assert gateway.balance_reads == 8


def test_a_guarded_function_is_pickled_with_its_guard_before_and_after_it_ran(gateway):
    """As Ray and Dask pickle the functions of `__main__`: by value."""
    made = guard("pickled", budget=5)
    for _ in range(2):
        with pickle.loads(pickle.dumps(made)) as run:
            assert (run.job, run.budget) == ("pickled", 5)
        with made:
            pass
