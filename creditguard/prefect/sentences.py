"""One sentence for each event, made from the event alone: what a person reads first in Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from creditguard.rules.events import Event


def sentence(event: Event) -> str:
    """What happened, figures first, without a full stop."""
    fields = event.fields
    said = _SENTENCES.get(event.name.removeprefix("creditguard."), _other)
    return f"{fields['job']}: {said(event.name, fields)}"


def _admitted(_: str, at: dict[str, Any]) -> str:
    on_account = "" if at["balance_before"] is None else f" of {amount(at['balance_before'])}"
    return f"admitted, {amount(at['budget'])}{on_account} {at['unit']} held"


def _short(_: str, at: dict[str, Any]) -> str:
    return f"started although short, {needs(at)}"


def _refused(_: str, at: dict[str, Any]) -> str:
    return f"refused, {needs(at)}"


def needs(at: Mapping[str, Any]) -> str:
    """What is asked for, and what is there for it, from the fields of an event."""
    if at["headroom"] is None:
        return f"needs {amount(at['budget'])} {at['unit']}, how many are free is unknown"
    held = f", {amount(at['held_by_others'])} held by others" if at["held_by_others"] else ""
    free = amount(max(at["headroom"], 0))
    return f"needs {amount(at['budget'])} {at['unit']}, {free} are free ({amount(at['balance_before'])} on the account{held})"


def _unreadable(_: str, at: dict[str, Any]) -> str:
    done = {"abort": "refused", "warn": "started all the same"}.get(at["policy"], "goes on")
    return f"{done}, {at['reason']}"


def _threshold(_: str, at: dict[str, Any]) -> str:
    return f"{at['threshold']:.0%} of the budget is spent, {amount(at['spent'])} of {amount(at['budget'])} {at['unit']}"


def _overrun(_: str, at: dict[str, Any]) -> str:
    stopping = ", the job is told to stop" if at["stopping"] else ""
    if at["cause"] == "stop_below":
        return f"{amount(at['balance_now'])} {at['unit']} are left, fewer than {amount(at['stop_below'])}{stopping}"
    return f"over its budget, spent {_spent(at['spent'], at['spent_basis'])} of {amount(at['budget'])} {at['unit']}{stopping}"


def _finished(_: str, at: dict[str, Any]) -> str:
    ended = "" if at["outcome"] == "succeeded" else f"{at['outcome']}, "
    left = "" if at["balance_after"] is None else f", {amount(at['balance_after'])} left"
    spent = _spent(at["credits_consumed"], at["basis"])
    return f"{ended}consumed {spent} of {amount(at['budget'])} {at['unit']} in {duration(at['duration_s'])}{left}"


def _other(name: str, at: dict[str, Any]) -> str:
    what = name.removeprefix("creditguard.").replace("_", " ")
    return f"{what}, {at['reason']}" if "reason" in at else what


_SENTENCES = {
    "admitted": _admitted,
    "short": _short,
    "refused": _refused,
    "unreadable": _unreadable,
    "ledger_unavailable": _unreadable,
    "threshold": _threshold,
    "overrun": _overrun,
    "finished": _finished,
}


def _spent(of: float | None, basis: str) -> str:
    if of is None:
        return "an unknown part"
    bound = {"shared_account_delta": "at most ", "at_least": "at least "}.get(basis, "")
    return f"{bound}{amount(of)}"


def amount(of: Decimal | float | None) -> str:
    """An amount of credits as people write it."""
    return "?" if of is None else f"{of:,.6f}".rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for size, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {name}"
    return f"{seconds:.1f} s"
