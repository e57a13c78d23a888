"""`creditguard wait`: until the account can carry a budget, asking politely."""

from __future__ import annotations

import argparse

from creditguard.cli import exits
from creditguard.cli.output import say
from creditguard.cli.preflight import Events, guard_for


def run(options: argparse.Namespace) -> int:
    """Ask until the budget fits: 0. At the timeout the last answer's code: 75 when short."""
    events = Events(options)
    waiting = guard_for(options, "wait", events, wait=options.timeout, min_interval=options.interval)
    refusal = waiting.ask().refusal
    if refusal is None:
        return exits.OK
    if not events.told:
        say(f"gave up: {refusal}")
    return exits.code_for(refusal, options.short_code)
