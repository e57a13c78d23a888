"""The few figures that stand above all charts, in words."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from creditguard.report.figures import AccountLine, Burn, Consumed, History, consumed
from creditguard.report.wording import day, figure, moment, plural, rough


class Tile(NamedTuple):
    """One figure."""

    name: str
    value: str
    more: str = ""
    unit: str = ""
    marks: tuple[str, ...] = ()
    """`wide`, `inexact`, `alarm`: how it looks."""


def period(history: History) -> str:
    """`26 Oct 2026 to 25 Nov 2026 · account default · times in UTC`."""
    names = [account.name for account in history.accounts]
    parts = [f"{day(history.since)} to {moment(history.until)}"]
    parts += [f"account {names[0]}"] if len(names) == 1 else [f"{len(names)} accounts"] if names else []
    return " · ".join([*parts, f"times in {history.until.tzname()}"])


def sentences(history: History) -> list[str]:
    """What happened, in one or two sentences."""
    if not history.runs:
        return ["No run ended in this time."]
    started = history.started
    used = consumed(started)
    jobs = len({run.job for run in started})
    least = "" if used.is_exact else "at least "
    said = f"{plural(len(started), 'run')} of {plural(jobs, 'job')} consumed {least}{figure(used.least)} {history.unit}"
    refused = history.outcomes["refused"]
    said += f", and {refused:,} {'was' if refused == 1 else 'were'} refused." if refused else "."
    first = _first_empty(history)
    if first is None:
        return [said]
    account, found = first
    assert account.last is not None  # noqa: S101 - it has a burn
    whose = f" on {account.name}" if len(history.accounts) > 1 else ""
    return [said, f"The {figure(account.last.balance)} left{whose} will last {_span(found)} if days go on as they did."]


def _span(found: Burn) -> str:
    if found.until_empty is None:
        return "on"
    if found.soonest is None or found.latest is None:
        return f"about {_days(found.until_empty)}"
    if found.latest == float("inf"):
        return f"{_number(found.soonest)} days or more"
    low, high = _number(found.soonest), _number(found.latest)
    return f"about {_days(found.until_empty)}" if low == high else f"{low} to {high} days"


def _days(days: float) -> str:
    return "1 day" if _number(days) == "1" else f"{_number(days)} days"


def _number(days: float) -> str:
    return f"{days:.1f}".removesuffix(".0") if days < 3 else f"{days:,.0f}"


def _first_empty(history: History) -> tuple[AccountLine, Burn] | None:
    known = [
        (account, found)
        for account in history.accounts
        if (found := history.burns[account.name]) and found.until_empty is not None
    ]
    return min(known, key=lambda each: each[1].until_empty or 0.0, default=None)


def tiles(history: History) -> list[Tile]:
    """The seven figures."""
    started = history.started
    refused = [run for run in history.runs if run.outcome == "refused"]
    over = sum(run.over for run in started)
    untold = sum(run.sure == "unknown" and not run.over for run in started)
    outcomes = history.outcomes
    ended = [
        f"{outcomes[each]:,} {each}" for each in ("succeeded", "failed", "cancelled", "abandoned") if outcomes[each]
    ]
    return [
        _consumed(consumed(started), history.unit),
        Tile("Runs", f"{len(started):,}", ", ".join(ended)),
        Tile(
            "Refused",
            f"{len(refused):,}",
            f"last: {refused[-1].job}, {day(refused[-1].ended)}" if refused else "",
            marks=("alarm",) if refused else (),
        ),
        Tile(
            "Over budget", f"{over:,}", f"not known of {untold:,}" if untold else "", marks=("alarm",) if over else ()
        ),
        *_account_tiles(history),
    ]


def _consumed(used: Consumed, unit: str) -> Tile:
    if used.is_exact:
        return Tile("Consumed", figure(used.least), f"exact, in {plural(used.exact_runs, 'run')}", unit, ("wide",))
    parts = [f"{figure(used.exact)} for certain in {plural(used.exact_runs, 'run')}"]
    if used.bounded_runs:
        parts.append(f"at most {figure(used.more_at_most)} more in {used.bounded_runs:,} beside others")
    if used.unknown_runs:
        parts.append(f"{used.unknown_runs:,} not known")
    return Tile("Consumed", f"≥ {figure(used.least)}", "; ".join(parts), unit, ("wide", "inexact"))


def _account_tiles(history: History) -> list[Tile]:
    last = [account.last for account in history.accounts if account.last is not None]
    found = [each for each in history.burns.values() if each is not None]
    several = f"in {len(last)} accounts" if len(last) > 1 else ""
    if last:
        seen = max(reading.at for reading in last)
        when = f"as of {moment(seen)}" if history.until - seen > timedelta(minutes=5) else "just now"
        now = Tile("Balance now", figure(sum(reading.balance for reading in last)), several or when)
    else:
        now = Tile("Balance now", "?", "no balance was read", marks=("inexact",))
    if not found:
        short = "less than a day was seen"
        return [
            now,
            Tile("Burn a day", "?", short, marks=("inexact",)),
            Tile("Days until empty", "?", short, marks=("inexact",)),
        ]
    burnt = Tile(
        "Burn a day", rough(sum(each.a_day for each in found)), several or f"over {_days(found[0].days)}, top-ups aside"
    )
    return [now, burnt, _until_empty(history)]


def _until_empty(history: History) -> Tile:
    first = _first_empty(history)
    if first is None:
        return Tile("Days until empty", "∞", "nothing is burnt")
    account, found = first
    assert found.until_empty is not None  # noqa: S101 - it is the first for that
    whose = f", {account.name}, the first" if len(history.accounts) > 1 else ""
    value = f"≈ {_number(found.until_empty)}"
    if found.soonest is None:
        return Tile("Days until empty", value, f"too few days for a range{whose}", marks=("inexact",))
    marks = ("alarm",) if found.soonest < 3 else ()
    return Tile("Days until empty", value, f"{_span(found)}, 4 times in 5{whose}", marks=marks)


def accounts(history: History) -> list[tuple[str, str, str, str]]:
    """For each account its name, balance, burn a day, and days until empty."""
    return [
        (
            account.name,
            figure(account.last.balance) if account.last else "?",
            rough(each.a_day) if (each := history.burns[account.name]) else "?",
            _span(each) if each and each.until_empty is not None else "?",
        )
        for account in history.accounts
    ]
