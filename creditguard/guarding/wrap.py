"""Run functions, coroutine functions, generators and async generators as guarded runs.

Generators are stepped by hand, and not by `yield from`, so that `current_run()` is theirs while they run and never while
their consumer does. So a run that is told to stop can throw its BudgetExceeded in, too, at the next step; a step of an
async generator that is under way is cancelled.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import copy_context
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, ParamSpec, TypeAlias, TypeVar

from creditguard.guarding.entry import Entry
from creditguard.guarding.hosts import engine_of
from creditguard.guarding.run import Run, current

P = ParamSpec("P")
R = TypeVar("R")
NewEntry: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Entry]


def refuse_what_is_no_function(function: object) -> None:
    """Tell the mistakes that would otherwise show only when money is gone: a guard around a task object, or around what sends it
    (`task.delay`, `remote`, `pool.submit`), runs when the task is *defined* or sent, or never, and one around a class guards nothing.

    Methods of a user's own are functions, those of classes that derive from an engine's included; raises TypeError for all else.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        engine, name = engine_of(function.__func__), function.__qualname__
    elif isinstance(function, FunctionType):
        engine, name = _engine_that_it_sends_to(function)
    elif isinstance(function, BuiltinFunctionType):
        return
    elif isinstance(function, type):
        raise TypeError("guard wraps functions, not a class; put it on the method that does the work")
    else:
        kind = type(function)
        engine, name = engine_of(function), kind.__name__
        if not engine and not callable(function):
            raise TypeError(f"guard wraps functions, not {name}; put @classmethod and the like above @guard")
        engine = engine or kind.__module__.partition(".")[0]
    if engine:
        raise TypeError(
            f"guard wraps plain functions, and this is {engine}'s own {name}: put guard on the function that does the work; "
            "the order is @task over @guard"
        )


def _engine_that_it_sends_to(function: FunctionType) -> tuple[str | None, str]:
    """Ray's `remote` is a function, and looks like the user's: but its code is Ray's, and it holds one of Ray's objects. (What an
    engine's helper has decorated holds the user's function alone.)"""
    if engine_of(function):
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                held = cell.cell_contents
                if not isinstance(held, (FunctionType, type)) and (engine := engine_of(held)):
                    return engine, type(held).__name__
    return None, ""


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
