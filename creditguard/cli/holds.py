"""`creditguard holds`: who holds what on the ledger, and the way out for a hold that should not be there."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone

from creditguard.cli import exits
from creditguard.cli.output import answer, printable, say
from creditguard.cli.parser import UsageError
from creditguard.cli.preflight import ledger_for
from creditguard.cli.table import render
from creditguard.rules.amounts import from_micro, to_json
from creditguard.rules.values import LiveHold


def run(options: argparse.Namespace) -> int:
    """List the live holds, or release one."""
    ledger = ledger_for(options)
    if options.action == "release":
        if options.id is None:
            raise UsageError("holds release needs the ID of a hold: creditguard holds list shows them")
        if not ledger.release(options.id):
            say(f"there is no hold {options.id}")
            return exits.CONFIGURATION
        answer(printable(f"released {options.id}"))
        return exits.OK
    holds = ledger.holds(options.account)
    if options.json:
        answer(json.dumps([_as_json(hold) for hold in holds]))
    elif holds:
        header = ("RUN_ID", "JOB", "ACCOUNT", "CREDITS", "SINCE", "LEASE_ENDS", "HOST", "PID")
        answer(render(header, [_as_row(hold) for hold in holds]))
    else:
        say("nothing is held")
    return exits.OK


def _as_json(live: LiveHold) -> dict[str, object]:
    return {
        "run_id": live.hold.id,
        "job": live.hold.job,
        "account": live.hold.account,
        "credits": to_json(from_micro(live.hold.amount)),
        "labels": dict(live.hold.labels),
        "since": live.since.isoformat(timespec="seconds"),
        "lease_ends": live.lease_ends.isoformat(timespec="seconds"),
        "host": live.owner.host,
        "pid": live.owner.pid,
    }


def _as_row(live: LiveHold) -> tuple[object, ...]:
    left = (live.lease_ends - datetime.now(timezone.utc)).total_seconds()
    return (
        live.hold.id,
        live.hold.job,
        live.hold.account,
        f"{from_micro(live.hold.amount):f}",
        f"{live.since.astimezone():%Y-%m-%d %H:%M:%S}",
        f"in {left:.0f}s" if left > 0 else "over",
        live.owner.host.partition("/")[0],
        live.owner.pid,
    )
