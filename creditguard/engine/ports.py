"""Perform the effects of a flow: `sync` in the calling thread, `asynchronous` without blocking the event loop."""

from __future__ import annotations

from dataclasses import dataclass

from creditguard.engine.leases import Leases
from creditguard.engine.readings import Readings
from creditguard.rules.effects import LedgerEffect, Publish, Recent, Release, Reserve, Settle, Sweep, TakeMark
from creditguard.rules.ports import EventSink


@dataclass(frozen=True, slots=True)
class Ports:
    """What the effects of one account's runs are performed on."""

    readings: Readings
    leases: Leases
    sink: EventSink


def on_ledger(effect: LedgerEffect, leases: Leases) -> object:
    """Perform an effect on the ledger."""
    match effect:
        case Reserve(hold, available, mark):
            return leases.reserve(hold, available=available, mark=mark)
        case TakeMark(account):
            return leases.mark(account)
        case Recent(account, max_age, claim):
            return leases.verbs.recent(account, max_age=max_age, claim=claim)
        case Settle(report):
            leases.settle(report)
        case Release(run_id):
            leases.release(run_id)
        case Sweep(account):
            return leases.sweep(account)
        case Publish(account, reading):
            leases.verbs.publish(account, reading)
    return None
