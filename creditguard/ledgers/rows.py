"""What a row of a database and our values have in common: text that every engine takes, and JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from creditguard.rules.values import Balance, Hold, Label, LiveHold, Mark, Owner, Reading


def text(value: str) -> str:
    """The same text, with escapes for what a database refuses: NUL, and bytes of an argument that were no UTF-8."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def labels_to_json(labels: Mapping[str, Label]) -> str:
    return json.dumps(dict(labels), default=str) if labels else "{}"


def report_to_json(report: Mapping[str, object]) -> str:
    return json.dumps(dict(report), default=str)


def report_from_json(report: str, finished_at: float) -> dict[str, object]:
    """The report as it was filed, and when."""
    return {**json.loads(report), "finished_at": moment(finished_at).isoformat(timespec="milliseconds")}


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
        }
    )


def reading_from_json(reading: str) -> Reading:
    row: dict[str, Any] = json.loads(reading)
    balance = Balance(
        Decimal(row["amount"]), row["unit"], datetime.fromisoformat(row["read_at"]), row["request_id"], row["source"]
    )
    return Reading(balance, Mark(*row["mark"]) if row["mark"] else None)


def live_hold(hold: tuple[Any, ...], owner: tuple[Any, ...], since: float, lease_ends: float) -> LiveHold:
    """A live hold from the columns of a hold (run, account, amount, job, labels) and of an owner, and two times."""
    run_id, account, amount, job, labels = hold
    return LiveHold(
        Hold(run_id, account, amount, job, json.loads(labels)), Owner(*owner), moment(since), moment(lease_ends)
    )


def moment(timestamp: float) -> datetime:
    """A Unix time as a datetime in UTC."""
    return datetime.fromtimestamp(timestamp, timezone.utc)
