"""What a row of a database and our values have in common: text that every engine takes, and JSON. Pure.

A database may hold what nobody of us wrote (a bit that flipped, somebody's UPDATE), so whatever is read is checked here before
it becomes a value. What cannot be one raises some exception, which the ledgers turn into LedgerUnavailable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from creditguard.rules.amounts import from_micro, to_credits, to_json
from creditguard.rules.values import Balance, Hold, LiveHold, Mark, Owner, Reading

_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode


class DamagedError(ValueError):
    """A row that is not what a ledger writes."""


def text(value: str) -> str:
    """The same text, with escapes for what a database refuses: NUL, and bytes of an argument that were no UTF-8."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def as_json(labels_or_report: Mapping[str, object]) -> str:
    return _encode(dict(labels_or_report))


def report_from_json(report: str, finished_at: float) -> dict[str, object]:
    """The report as it was filed, and when."""
    return {**_object(report), "finished_at": moment(finished_at).isoformat(timespec="milliseconds")}


def reading_to_json(reading: Reading) -> str:
    """The reading, its amount as text so that not a digit is lost."""
    balance, mark = reading.balance, reading.mark
    return json.dumps(
        {
            "amount": str(balance.amount),
            "unit": balance.unit,
            "read_at": balance.read_at.isoformat(),
            "request_id": balance.request_id,
            "source": balance.source,
            "mark": mark and [mark.admitted, mark.released, mark.started, mark.ended],
            "lagging": mark is not None and mark.lagging,
        }
    )


def reading_from_json(reading: str) -> Reading:
    row = _object(reading)
    amount, read_at = to_credits(row["amount"], negative=True), datetime.fromisoformat(row["read_at"])
    words = (row["unit"], row["source"], row["request_id"] or "")
    if read_at.tzinfo is None or not all(isinstance(word, str) for word in words):
        raise DamagedError("a published balance")
    balance = Balance(amount, row["unit"], read_at, row["request_id"], row["source"])
    return Reading(balance, mark(*row["mark"], row.get("lagging", False)) if row["mark"] else None)


def mark(*columns: Any) -> Mark:
    """A mark from the five columns of an account: text, integers or decimals, as the engine keeps them."""
    admitted, released, started, ended, lagging = columns
    found = Mark(int(admitted), int(released), int(started), int(ended), bool(lagging))
    if not (0 <= found.released <= found.admitted and 0 <= found.ended <= found.started):
        raise DamagedError("the totals of an account")
    return found


def live_hold(columns: Sequence[Any], since: float, lease_ends: float) -> LiveHold:
    """A live hold from the columns of a hold, then those of its owner, and two Unix times."""
    run_id, account, amount, job, labels, budget, balance, identity, host, boot, pid, started = columns
    if not all(isinstance(word, str) for word in (run_id, account, job, identity, host, boot, started)):
        raise DamagedError("a hold")
    return LiveHold(
        Hold(run_id, account, int(amount), job, _object(labels), None if balance is None else int(balance)),
        Owner(identity, host, boot, int(pid), started),
        moment(since),
        moment(lease_ends),
        int(amount if budget is None else budget),
    )


def abandoned(live: LiveHold) -> dict[str, object]:
    """The report of a run whose hold was swept: all that a ledger knows of it, in the words of a report, and `since` when."""
    from creditguard.rules.report import Report

    hold, budget = live.hold, live.hold.amount if live.budget is None else live.budget
    recorded = budget - hold.amount
    return {
        **dict.fromkeys(Report.__slots__),
        "run_id": hold.id,
        "job": hold.job,
        "account": hold.account,
        "budget": to_json(from_micro(budget)),
        "balance_before": None if hold.balance is None else to_json(from_micro(hold.balance)),
        "labels": dict(hold.labels),
        "basis": "unknown",
        # What the hold had shrunk by was recorded as spent.
        "consumed_at_least": to_json(from_micro(recorded)) if recorded > 0 else None,
        "settled": False,
        "outcome": "abandoned",
        "since": live.since.isoformat(timespec="milliseconds"),
    }


def moment(timestamp: float) -> datetime:
    """A Unix time as a datetime in UTC."""
    return datetime.fromtimestamp(timestamp, timezone.utc)


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise DamagedError("a JSON object")
    return found
