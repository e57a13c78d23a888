"""Run functions, coroutine functions, generators and async generators as guarded runs.

Generators are stepped by hand, and not by `yield from`, so that `current_run()` is theirs while they run and never while
their consumer does. So a run that is told to stop can throw its BudgetExceeded in, too, at the next step; a step of an
async generator that is under way is cancelled.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import copy_context
from typing import Any, ParamSpec, TypeAlias, TypeVar

from creditguard.guarding.entry import Entry
from creditguard.guarding.run import Run, current

P = ParamSpec("P")
R = TypeVar("R")
NewEntry: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Entry]


def wrap(function: Callable[P, R], new_entry: NewEntry) -> Callable[P, R]:
    """A function like `function` (name, signature, kind, types), each of whose calls is a run of its own.

    `new_entry` gets the arguments of the call. A generator's run starts with its first item, and lasts until it ends or is
    closed.
    """
    if inspect.isasyncgenfunction(function):
        wrapper = _async_generator(function, new_entry)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, new_entry)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function, new_entry)
    else:
        wrapper = _function(function, new_entry)
    guarded: Callable[P, R] = functools.wraps(function)(wrapper)
    return guarded


def _function(function: Callable[..., Any], new_entry: NewEntry) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with new_entry(args, kwargs) as run, current(run):
            return function(*args, **kwargs)

    return wrapper


def _coroutine(function: Callable[..., Awaitable[Any]], new_entry: NewEntry) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        async with new_entry(args, kwargs) as run:
            with current(run), run._stoppable():
                return await function(*args, **kwargs)

    return wrapper


def _generator(function: Callable[..., Generator[Any, Any, Any]], new_entry: NewEntry) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with new_entry(args, kwargs) as run:
            return (yield from _steps(function(*args, **kwargs), run))

    return wrapper


def _steps(inner: Generator[Any, Any, Any], run: Run) -> Generator[Any, Any, Any]:
    step: Callable[[], Any] = inner.__next__
    while True:
        if run.stopped and (stop := run._life.stopping.thrown()):
            step = functools.partial(inner.throw, stop)
        try:
            with current(run):
                item = step()
        except StopIteration as stop:
            return stop.value
        try:
            sent = yield item
        except GeneratorExit:
            copy_context().run(_close, inner, run)
            raise
        except BaseException as error:
            step = functools.partial(inner.throw, error)
        else:
            step = functools.partial(inner.send, sent)


def _close(inner: Generator[Any, Any, Any], run: Run) -> None:
    """In a context of its own: where the collector closes a generator, which may be in the middle of `copy_context()`, a context variable
    that is set pulls the context from under it, and Python 3.11 ends in a segmentation fault."""
    with current(run):
        inner.close()


def _async_generator(function: Callable[..., AsyncGenerator[Any, Any]], new_entry: NewEntry) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async with new_entry(args, kwargs) as run:
            inner = function(*args, **kwargs)
            step: Callable[[], Awaitable[Any]] = inner.__anext__
            while True:
                if run.stopped and (stop := run._life.stopping.thrown()):
                    step = functools.partial(inner.athrow, stop)
                try:
                    with current(run), run._stoppable():
                        item = await step()
                except StopAsyncIteration:
                    return
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

    return wrapper
