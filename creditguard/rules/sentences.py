"""One sentence for each event, for people: on the console, in `print(report)`, in Airflow and Prefect. Made from the event alone.

Each begins with the job, gives the numbers first, and says what to do where there is something to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from creditguard.errors import shortage
from creditguard.rules import events

Fields: TypeAlias = Mapping[str, Any]


def sentence(name: str, fields: Fields) -> str:
    """The event in one sentence, without its time and level."""
    make = _SENTENCES.get(name)
    said = make(fields) if make else name.removeprefix("creditguard.").replace("_", " ")
    return f"{fields.get('job') or 'creditguard'}: {said}"


def amount(value: float | None) -> str:
    """An amount as people write it: whole where it is whole, never in powers of ten."""
    if value is None:
        return "?"
    return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0")


def duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `2 min`, `1 h 5 min`, `3 d 2 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def _shortage(fields: Fields) -> str:
    numbers = (fields.get(name) for name in ("headroom", "balance_before", "held_by_others", "keep"))
    free, balance, held, keep = (None if number is None else Decimal(str(number)) for number in numbers)
    needs = Decimal(str(fields["budget"]))
    return shortage(
        needs, free or Decimal(0), fields.get("unit") or "credits", balance, held, keep, others=fields.get("others")
    )


def _credits(fields: Fields, value: float | None) -> str:
    unit = fields.get("unit") or "credits"
    return f"{amount(value)} {unit.removesuffix('s') if value == 1 and unit == 'credits' else unit}"


def _usually(fields: Fields) -> str:
    return f" ({fields['usually']})" if fields.get("usually") else ""


def _admitted(fields: Fields) -> str:
    others = f", {amount(fields['held_by_others'])} more by others" if fields.get("held_by_others") else ""
    if fields.get("held") == 0:  # only asked, or the ledger is done without
        needed = f"{amount(fields['budget'])} of {_credits(fields, fields.get('balance_before'))}"
        return f"admitted, {needed} needed, none held{others.replace(' more', '')}"
    return f"admitted, {amount(fields['budget'])} of {_credits(fields, fields.get('balance_before'))} held{others}"


def _short(fields: Fields) -> str:
    return f"short, but it starts: {_shortage(fields)}"


def _refused(fields: Fields) -> str:
    missing = amount(fields.get("shortfall"))
    advice = f"top up {missing}, or wait for the others" if fields.get("held_by_others") else f"top up {missing}"
    return f"refused, {_shortage(fields)}{_usually(fields)}: {advice}, or declare less"


def _waiting(fields: Fields) -> str:
    return f"waiting for room, {_shortage(fields)}"


def _extended(fields: Fields) -> str:
    return f"budget raised by {amount(fields.get('extended_by'))} to {_credits(fields, fields['budget'])}"


_WITHOUT = {"abort": "refused, ", "warn": "it starts all the same: ", "passed_over": "it is done without: ", "none": ""}


def _unreadable(fields: Fields) -> str:
    when = " after the job" if fields.get("stage") == "after" else ""
    return f"{_WITHOUT[fields['policy']]}the balance could not be read{when}: {fields['reason']}"


def _ledger_unavailable(fields: Fields) -> str:
    if fields.get("stage") == "after":
        return f"the ledger could not be told of the end, and will be told later: {fields['reason']}"
    return f"{_WITHOUT[fields['policy']]}the ledger could not be used: {fields['reason']}"


def _lease_lost(_: Fields) -> str:
    return "the hold lapsed while the job ran, so others may have been admitted against the same credits"


def _threshold(fields: Fields) -> str:
    share = f"{fields['threshold'] * 100:g} %"
    spent = f"{_bound(fields['spent_basis'])}{amount(fields['spent'])} of {_credits(fields, fields['budget'])}"
    return f"{share} of the budget spent, {spent}{_left(fields.get('balance_now'))}"


def _overrun(fields: Fields) -> str:
    if fields.get("cause") == "stop_below":
        left = _credits(fields, fields.get("balance_now"))
        return f"stopped, {left} left on the account, fewer than {amount(fields.get('stop_below'))}"
    spent = f"{_bound(fields['spent_basis'])}{amount(fields['spent'])} of {_credits(fields, fields['budget'])} spent"
    if fields.get("stopping"):
        return f"stopped, over its budget: {spent}"
    return f"over its budget: {spent}; raise the budget, or have it stopped (on overrun: stop)"


def _bound(basis: str) -> str:
    return {"shared_account_delta": "at most ", "at_least": "at least "}.get(basis, "")


def _drift(fields: Fields) -> str:
    lost, recorded = amount(fields.get("balance_delta")), _credits(fields, fields.get("credits_recorded"))
    return f"the account lost {lost}, the job recorded {recorded}: {fields['reason']}"


def _abandoned(fields: Fields) -> str:
    had = f", the account had {amount(fields['balance_before'])}" if fields.get("balance_before") is not None else ""
    since = f" since {fields['since']}" if fields.get("since") else ""
    held = _credits(fields, fields.get("held", fields["budget"]))
    return f"abandoned, its process died with {held} held{since}{had}: look up what it spent, nobody reported it"


def _lagging(fields: Fields) -> str:
    return (
        f"account {fields.get('account')} shows debits late: holds on it do not shrink until its balance has caught up"
    )


_OUTCOMES = {"failed": "failed, ", "cancelled": "cancelled, "}


def _finished(fields: Fields) -> str:
    if fields.get("outcome") == "refused":
        return f"refused, {_shortage(fields)}" if fields.get("balance_before") is not None else "refused"
    if fields.get("outcome") == "abandoned":
        return _abandoned(fields)
    spent, budget = fields.get("credits_consumed"), fields["budget"]
    took = duration(fields.get("duration_s") or 0.0)
    parts = [_OUTCOMES.get(fields.get("outcome") or "", "")]
    if spent is not None:
        parts.append(f"consumed {_bound(fields['basis'])}{amount(spent)} of {_credits(fields, budget)} in {took}")
    elif fields.get("consumed_at_least") is not None:
        parts.append(f"consumed at least {amount(fields['consumed_at_least'])} of {_credits(fields, budget)} in {took}")
    else:
        parts.append(
            f"consumed an unknown number of {fields.get('unit') or 'credits'} (budget {amount(budget)}) in {took}"
        )
    parts.append(_left(fields.get("balance_after")))
    if fields.get("over_budget"):
        parts.append(
            f", {amount(spent - budget)} over budget" if spent is not None and spent > budget else ", over budget"
        )
    return "".join(parts)


def _left(balance: float | None) -> str:
    return "" if balance is None else f", {amount(balance)} left"


_SENTENCES: Mapping[str, Callable[[Fields], str]] = {
    events.ADMITTED: _admitted,
    events.SHORT: _short,
    events.REFUSED: _refused,
    events.WAITING: _waiting,
    events.EXTENDED: _extended,
    events.UNREADABLE: _unreadable,
    events.LEDGER_UNAVAILABLE: _ledger_unavailable,
    events.LEASE_LOST: _lease_lost,
    events.THRESHOLD: _threshold,
    events.OVERRUN: _overrun,
    events.DRIFT: _drift,
    events.ABANDONED: _abandoned,
    events.LAGGING: _lagging,
    events.FINISHED: _finished,
}
