"""Perform a flow in the calling thread."""

from __future__ import annotations

import time

from creditguard.engine.ports import Ports, on_ledger
from creditguard.rules.effects import Effect, Emit, Flow, Now, Read, Sleep, T


def run(flow: Flow[T], ports: Ports) -> T:
    """Drive the flow to its end and return its result. Whatever interrupts an effect is the flow's to answer first."""
    try:
        effect = next(flow)
        while True:
            try:
                outcome = _perform(effect, ports)
            except BaseException as error:
                effect = flow.throw(error)
            else:
                effect = flow.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _perform(effect: Effect, ports: Ports) -> object:
    match effect:
        case Read(marked):
            return ports.readings.read(marked=marked)
        case Now():
            return time.monotonic()
        case Emit(event):
            ports.sink.emit(event)
        case Sleep(seconds):
            time.sleep(seconds)
        case _:
            return on_ledger(effect, ports.leases)
    return None
