"""`creditguard holds`: who holds what on the ledger, and the way out for a hold that should not be there."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from creditguard.cli import exits, table
from creditguard.cli.exits import UsageError
from creditguard.cli.output import answer, say
from creditguard.cli.preflight import ledger_for
from creditguard.rules.amounts import from_micro, to_json
from creditguard.rules.text import printable
from creditguard.rules.values import LiveHold

_FIELDS = ("run_id", "job", "account", "credits", "since", "lease_ends", "host", "pid", "labels")
_MOST = 1000
_ALL = 10**9


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
    if options.id is not None:
        raise UsageError(f"holds list takes no ID: creditguard holds release {options.id} gives that hold back")
    limit = _ALL if options.job else _MOST
    holds = [live for live in ledger.holds(options.account, limit=limit) if options.job in {None, live.hold.job}]
    if options.json or options.csv:
        table.answer_records(options, _FIELDS, [as_json(hold) for hold in holds])
    elif holds:
        marks: dict[int, table.Mark] = {at: "yellow" for at, live in enumerate(holds) if _left(live) <= 0}
        spare = ("ACCOUNT", "HOST", "PID", "SINCE", "LEASE_ENDS")
        header = [field.upper() for field in _FIELDS if field != "labels"]
        table.show(header, [_as_row(hold) for hold in holds], spare=spare, marks=marks)
    else:
        say("nothing is held" if options.job is None else f"nothing is held by {options.job}")
    return exits.OK


def as_json(live: LiveHold) -> dict[str, object]:
    """The hold as plain JSON values."""
    return {
        "run_id": live.hold.id,
        "job": live.hold.job,
        "account": live.hold.account,
        "credits": to_json(from_micro(live.hold.amount)),
        "since": live.since.isoformat(timespec="seconds"),
        "lease_ends": live.lease_ends.isoformat(timespec="seconds"),
        "host": live.owner.host,
        "pid": live.owner.pid,
        "labels": dict(live.hold.labels),
    }


def _as_row(live: LiveHold) -> tuple[object, ...]:
    left = _left(live)
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


def _left(live: LiveHold) -> float:
    return (live.lease_ends - datetime.now(timezone.utc)).total_seconds()
