"""How the page writes amounts, times and what it knows of them."""

from __future__ import annotations

from datetime import datetime


def figure(value: float | None) -> str:
    """An amount as people read it: `12,400`, `3.25`, `?` for what is not known."""
    if value is None:
        return "?"
    text = f"{value:,.2f}" if abs(value) >= 1 else f"{value:.6f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def rough(value: float) -> str:
    """An amount that is an estimate: three figures are enough."""
    return figure(round(value) if abs(value) >= 100 else float(f"{value:.3g}"))


def credits_of(value: float | None, sure: str, unit: str) -> str:
    """What a run consumed: `72 credits`, `at most 72 credits`."""
    if value is None or sure == "unknown":
        return "not known"
    bound = f"{sure} " if sure in {"at most", "at least"} else ""
    return f"{bound}{figure(value)} {unit}"


def moment(at: datetime) -> str:
    """`25 Nov 2026, 14:05`."""
    return f"{at.day} {at:%b %Y, %H:%M}"


def day(at: datetime) -> str:
    """`25 Nov 2026`."""
    return f"{at.day} {at:%b %Y}"


def plural(count: int, word: str) -> str:
    """`1 run`, `1,200 runs`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
