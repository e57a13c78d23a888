"""Run functions, coroutine functions, generators and async generators as guarded runs.

Generators are stepped by hand, and not by `yield from`, so that `current_run()` is theirs while they run and never while
their consumer does. So a run that is told to stop can throw its BudgetExceeded in, too, at the next step; a step of an
async generator that is under way is cancelled.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, ParamSpec, TypeAlias, TypeVar

from creditguard.guarding.run import Run, current
from creditguard.rules.report import outcome_of

P = ParamSpec("P")
R = TypeVar("R")
NewRun: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Run]


def wrap(function: Callable[P, R], new_run: NewRun) -> Callable[P, R]:
    """A function like `function` (name, signature, kind, types), each of whose calls is a run of its own.

    `new_run` gets the arguments of the call. A generator's run starts with its first item, and lasts until it ends or is
    closed.
    """
    if inspect.isasyncgenfunction(function):
        wrapper = _async_generator(function, new_run)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, new_run)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function, new_run)
    else:
        wrapper = _function(function, new_run)
    guarded: Callable[P, R] = functools.wraps(function)(wrapper)
    return guarded


def _function(function: Callable[..., Any], new_run: NewRun) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        run = new_run(args, kwargs)
        run.open()
        try:
            with current(run):
                result = function(*args, **kwargs)
        except BaseException as error:
            run.close(outcome_of(error))
            raise
        run.close("succeeded")
        return result

    return wrapper


def _coroutine(function: Callable[..., Awaitable[Any]], new_run: NewRun) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        run = new_run(args, kwargs)
        await run.aopen()
        try:
            with current(run), run.stoppable():
                result = await function(*args, **kwargs)
        except BaseException as error:
            await run.aclose(outcome_of(error))
            raise
        await run.aclose("succeeded")
        return result

    return wrapper


def _generator(function: Callable[..., Generator[Any, Any, Any]], new_run: NewRun) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        run = new_run(args, kwargs)
        run.open()
        try:
            result = yield from _steps(function(*args, **kwargs), run)
        except BaseException as error:
            run.close(outcome_of(error))
            raise
        run.close("succeeded")
        return result

    return wrapper


def _steps(inner: Generator[Any, Any, Any], run: Run) -> Generator[Any, Any, Any]:
    step: Callable[[], Any] = inner.__next__
    while True:
        if run.stopped and (stop := run.thrown()):
            step = functools.partial(inner.throw, stop)
        try:
            with current(run):
                item = step()
        except StopIteration as stop:
            return stop.value
        try:
            sent = yield item
        except GeneratorExit:
            with current(run):
                inner.close()
            raise
        except BaseException as error:
            step = functools.partial(inner.throw, error)
        else:
            step = functools.partial(inner.send, sent)


def _async_generator(function: Callable[..., AsyncGenerator[Any, Any]], new_run: NewRun) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        run = new_run(args, kwargs)
        await run.aopen()
        try:
            inner = function(*args, **kwargs)
            step: Callable[[], Awaitable[Any]] = inner.__anext__
            while True:
                if run.stopped and (stop := run.thrown()):
                    step = functools.partial(inner.athrow, stop)
                try:
                    with current(run), run.stoppable():
                        item = await step()
                except StopAsyncIteration:
                    break
                try:
                    sent = yield item
                except GeneratorExit:
                    with current(run):
                        await inner.aclose()
                    raise
                except BaseException as error:
                    step = functools.partial(inner.athrow, error)
                else:
                    step = functools.partial(inner.asend, sent)
        except BaseException as error:
            await run.aclose(outcome_of(error))
            raise
        await run.aclose("succeeded")

    return wrapper
