"""Checks for values that come from outside. Each names the field it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping

LIMIT = 10**15  # far beyond any pool, small enough to stay exact in every JSON reader
LONGEST = 86_400.0  # a day; threading refuses to wait for very long times


class BadField(ValueError):
    """A value that cannot be used. `field` says which."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field


def whole(field: str, value: object, low: int = 0, high: int = LIMIT) -> int:
    """A whole number from `low` to `high`. True is not 1."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadField(field, f"must be a whole number from {low} to {high}")
    return value


def seconds(field: str, value: object) -> float:
    """A time to wait."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LONGEST:
        raise BadField(field, f"must be a number of seconds from 0 to {LONGEST:.0f}")
    return float(value)


def flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadField(field, "must be true or false")
    return value


def text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadField(field, "must be a string")
    return value


def header(field: str, value: object) -> str:
    """Text that may stand in a header: a line break would start another header."""
    value = text(field, value)
    if not value.isprintable() or not value.isascii():
        raise BadField(field, "must be printable ASCII on one line")
    return value


def header_name(field: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value):
        raise BadField(field, "must have header names for keys")
    return value


def mapping(field: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise BadField(field, "must be an object with names for keys")
    return value
