"""What an argument, a variable or a field of a settings file may be: one set of rules for all three.

Each rule takes what was given and the name under which it was given, and returns the value or raises ConfigurationError,
which is one line that begins with that name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Literal, TypeVar, cast

from creditguard.errors import ConfigurationError
from creditguard.rules.amounts import rounded, shown, to_credits
from creditguard.rules.values import OnOverrun, OnShort, SettleTime

W = TypeVar("W", bound=str)


def parse_text(value: object, name: str) -> str:
    """Text, without white space around it."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be text", name)
    return value.strip()


def parse_name(value: object, name: str) -> str:
    """A name for logs: text of 1 to 200 printable characters."""
    text = value.strip() if isinstance(value, str) else ""
    if not text or len(text) > 200 or not text.isprintable():
        raise ConfigurationError(f"{name} must be a name of 1 to 200 printable characters", name)
    return text


def parse_seconds(value: object, name: str) -> float:
    """A number of seconds, 0 or more and at most a week."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(cast("Any", value))
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= 604800:
        raise ConfigurationError(f"{name} must be a number of seconds, from 0 to 604800, not {shown(value)}", name)
    return seconds


def parse_timeout(value: object, name: str) -> float:
    """A number of seconds, more than 0 and at most 10 minutes."""
    seconds = parse_seconds(value, name)
    if not 0 < seconds <= 600:
        raise ConfigurationError(f"{name} must be more than 0 and at most 600 seconds, not {shown(value)}", name)
    return seconds


def parse_settle(value: object, name: str) -> SettleTime:
    """Seconds, or `stable`, or `stable:SECONDS` for another limit than a minute."""
    if isinstance(value, str):
        word, _, limit = value.strip().partition(":")
        if word == "stable":
            return SettleTime(parse_seconds(limit or 60, f"{name}, after 'stable:',"), stable=True)
    try:
        return SettleTime(parse_seconds(value, name))
    except ConfigurationError:
        message = f"{name} must be a number of seconds, 0 or more, or 'stable', or 'stable:120', not {shown(value)}"
        raise ConfigurationError(message, name) from None


def parse_policy(value: object, name: str) -> OnShort:
    """`abort` or `warn`."""
    return _one_of(("abort", "warn"), value, name)


def parse_overrun(value: object, name: str) -> OnOverrun:
    """`warn` or `stop`."""
    return _one_of(("warn", "stop"), value, name)


def parse_log_format(value: object, name: str) -> Literal["json", "console", "none"]:
    """`json`, `console` or `none`."""
    return _one_of(("json", "console", "none"), value, name)


def parse_switch(value: object, name: str) -> bool:
    """`on` or `off`, or a bool, which TOML and Python have."""
    return value if isinstance(value, bool) else _one_of(("on", "off"), value, name) == "on"


def parse_budget(value: object, name: str) -> Decimal:
    """An amount of credits, 0 or more."""
    return rounded(to_credits(cast("Any", value), name))


def parse_keep(value: object, name: str) -> Decimal:
    """An amount of credits, negative for an overdraft that is allowed."""
    return rounded(to_credits(cast("Any", value), name, negative=True))


def parse_thresholds(value: object, name: str) -> tuple[Decimal, ...]:
    """Shares of a budget, in rising order, each once: more than 0, and at most 100."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError(
            f"{name} must be shares of the budget such as (0.5, 0.8, 1.0), not {shown(value)}", name
        )
    shares = {rounded(to_credits(share, name)) for share in value}
    if any(not 0 < share <= 100 for share in shares):
        raise ConfigurationError(
            f"{name} must be shares of the budget, more than 0 and at most 100, not {shown(value)}", name
        )
    return tuple(sorted(shares))


def _one_of(words: tuple[W, ...], value: object, name: str) -> W:
    for word in words:
        if value == word:
            return word
    allowed = " or ".join(", ".join(f"'{word}'" for word in words).rsplit(", ", 1))
    raise ConfigurationError(f"{name} must be {allowed}, not {shown(value)}", name)
