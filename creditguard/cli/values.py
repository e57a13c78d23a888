"""How options are read from text. What cannot be read raises ArgumentTypeError, which says what it must be."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from creditguard.errors import ConfigurationError
from creditguard.rules.amounts import rounded, to_credits

_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", re.ASCII
)
_UNITS = (86400, 3600, 60, 1)


def some_text(text: str) -> str:
    """Any text but none, which is as a rule a shell's variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def budget(text: str) -> Decimal:
    """An amount of credits, 0 or more."""
    return _amount(text, negative=False)


def keep(text: str) -> Decimal:
    """An amount of credits; negative for an overdraft."""
    return _amount(text, negative=True)


def _amount(text: str, *, negative: bool) -> Decimal:
    try:
        return rounded(to_credits(text, "it", negative=negative))
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        return None
    return sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS, strict=True) if part)


def duration(text: str) -> float:
    """Seconds, from `90`, `30s`, `5m`, `1h30m` or `2d`."""
    seconds = _seconds(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"it must be a time such as 30s, 5m or 1h30m, not {text!r}")
    if seconds > 30 * 86400:
        raise argparse.ArgumentTypeError(f"it must be at most 30d, not {text!r}")
    return seconds


def since(text: str) -> datetime:
    """A moment: so long ago (`12h`, `7d`), or a date, with a time or without, on the clock of this machine."""
    ago = None if text.strip().isdigit() else _seconds(text)  # 7 is no time ago: of days, or of what?
    try:
        if ago is not None:
            return datetime.now(timezone.utc) - timedelta(seconds=ago)
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"it must be a time ago such as 12h or 7d, or a date such as 2026-11-30, not {text!r}"
        ) from None


def settle(text: str) -> float | str:
    """Seconds, or `stable`, or `stable:` and a time: wait until two readings agree, but not longer than that."""
    word, colon, limit = text.strip().partition(":")
    if word != "stable":
        return duration(text)
    return f"stable:{duration(limit)}" if colon else word


def share(text: str) -> Decimal:
    """A share of the budget: `0.8` or `80%`. More than twice the budget is a percentage whose sign was forgotten."""
    percent = text.endswith("%")
    try:
        amount = to_credits(text.removesuffix("%"), "it")
    except ConfigurationError:
        raise argparse.ArgumentTypeError(f"it must be a share of the budget such as 0.8 or 80%, not {text!r}") from None
    if not percent and amount >= 2:
        raise argparse.ArgumentTypeError(
            f"it must be a share of the budget such as 0.8 or 80%: {text!r} would be {text} times the budget, {text}% is meant?"
        )
    amount = amount / 100 if percent else amount
    if not 0 < amount <= 100:
        raise argparse.ArgumentTypeError(f"it must be more than 0 and at most 100 times the budget, not {text!r}")
    return amount


def exit_code(text: str) -> int:
    """An exit code, 0 to 255."""
    return _whole(text, "an exit code from 0 to 255", 0, 255)


def label(text: str) -> tuple[str, str]:
    """`NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"it must be NAME=VALUE, not {text!r}")
    return name.strip(), value


def whole_number(text: str) -> int:
    """A number of rows, 1 or more."""
    return _whole(text, "a whole number, 1 or more", 1, 999_999)


def port(text: str) -> int:
    """A TCP port; 0 lets the system choose."""
    return _whole(text, "a port from 0 to 65535", 0, 65535)


def _whole(text: str, what: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII) or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"it must be {what}, not {text!r}")
    return int(text)
