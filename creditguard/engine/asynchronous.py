"""Perform a flow without blocking the event loop, under asyncio or trio.

Ledgers are synchronous; those that wait for a file or a server are asked in a worker thread. Such a call is not abandoned
when its task is cancelled: the flow could not tell whether the hold was taken, and would give it back too early.
"""

from __future__ import annotations

import time

import anyio
import anyio.to_thread

from creditguard.engine.ports import Ports, on_ledger
from creditguard.rules.effects import Effect, Emit, Flow, Now, Read, Sleep, T


async def run(flow: Flow[T], ports: Ports) -> T:
    """Drive the flow to its end and return its result.

    Once an effect has been interrupted (the task was cancelled), the flow cleans up: the rest is shielded from cancellation.
    """
    scope = anyio.CancelScope()
    with scope:
        return await _drive(flow, ports, scope)
    raise AssertionError("a scope that nobody cancels lets nothing vanish")


async def run_shielded(flow: Flow[T], ports: Ports) -> T:
    """As `run`, in a task that may have been cancelled already: for the end of a run, which its own deadlines bound."""
    scope = anyio.CancelScope(shield=True)
    with scope:
        return await _drive(flow, ports, scope)
    raise AssertionError("a scope that nobody cancels lets nothing vanish")


async def _drive(flow: Flow[T], ports: Ports, scope: anyio.CancelScope) -> T:
    try:
        effect = next(flow)
        while True:
            try:
                outcome = await _perform(effect, ports)
            except BaseException as error:
                if not isinstance(error, Exception):
                    scope.shield = True
                effect = flow.throw(error)
            else:
                effect = flow.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _perform(effect: Effect, ports: Ports) -> object:
    match effect:
        case Read(marked):
            return await ports.readings.aread(marked=marked)
        case Now():
            return time.monotonic()
        case Emit(event):
            ports.sink.emit(event)
        case Sleep(seconds):
            await anyio.sleep(seconds)
        case _:
            if ports.leases.immediate:
                return on_ledger(effect, ports.leases)
            return await anyio.to_thread.run_sync(on_ledger, effect, ports.leases)
    return None
