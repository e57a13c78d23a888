"""Amounts of credits: how they are read, rounded and shown.

Amounts are `Decimal` in the API and integers of micro-credits in the ledger. All arithmetic on them goes through `EXACT`, since
the host program may have set a decimal context of its own (a precision of 4 would turn 123456 credits into 123500).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TypeAlias

from creditguard.errors import ConfigurationError

Amount: TypeAlias = "int | float | str | Decimal"
EXACT = Context(prec=60)
ZERO = Decimal(0)
_ONE = Decimal(1)
MICRO = Decimal(1_000_000)
LARGEST = Decimal(10**12)
"""The largest amount: a million million credits, which fit into 64 bits as micro-credits (ledgers keep their sums in more)."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)


def to_credits(value: Amount, name: str = "budget", *, negative: bool = False) -> Decimal:
    """The amount as a Decimal. A float is taken by its repr, so that 0.1 is a tenth.

    `name` is the flag, variable or field that the value came from, for the error. Raises ConfigurationError for a bool, NaN,
    an infinity, text that is not a plain number, an amount beyond a million million, and (unless `negative`) one below 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ConfigurationError(f"{name} must be a number of credits, not {shown(value)}", name)
    if isinstance(value, (str, float)):
        text = value.strip() if isinstance(value, str) else repr(value)
        if not _NUMBER.fullmatch(text):
            raise ConfigurationError(
                f"{name} must be a number of credits such as 500 or 0.25, not {shown(value)}", name
            )
        amount = Decimal(text)
    elif isinstance(value, int):
        # Bounds first: turning an enormous int into a Decimal takes seconds.
        amount = Decimal(value) if value.bit_length() < 128 else LARGEST * 2
    else:
        amount = Decimal(value)
    if not amount.is_finite():
        raise ConfigurationError(f"{name} must be a finite number of credits, not {shown(value)}", name)
    if amount.copy_abs() > LARGEST:
        raise ConfigurationError(f"{name} must be at most {LARGEST:f} credits", name)
    if amount < 0 and not negative:
        raise ConfigurationError(f"{name} must not be negative, not {shown(value)}", name)
    return amount.copy_abs() if amount.is_zero() else amount  # no "-0" in a report


def shown(value: object) -> str:
    """What was given, for a message: on one line and short."""
    try:
        text = repr(value)
    except Exception:  # tables nested thousands deep, a number of thousands of digits, the caller's own repr
        return f"this {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."


def to_micro(amount: Decimal, *, up: bool) -> int:
    """The amount in millionths, rounded up (what a job may spend) or down (what an account has): never in the job's favour."""
    if amount.same_quantum(_ONE):
        return int(amount) * 1_000_000
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    return int(EXACT.multiply(amount, MICRO).to_integral_value(rounding, EXACT))


def rounded(amount: Decimal) -> Decimal:
    """The amount to the nearest millionth, the ledger's grain: 0.1 * 3 is 0.3 again, not 0.30000000000000004."""
    return whole(EXACT.quantize(amount, Decimal("0.000001")))


def from_micro(micro: int) -> Decimal:
    """The amount that a ledger's integer stands for."""
    return whole(EXACT.divide(Decimal(micro), MICRO))


def whole(amount: Decimal) -> Decimal:
    """The same amount, without a fraction where it has none: 80 rather than 80.0 or 8E+1."""
    if amount.same_quantum(_ONE):
        return amount
    integral = amount.to_integral_value(context=EXACT)
    return EXACT.quantize(integral, _ONE) if amount == integral else amount


def to_json(amount: Decimal | None) -> int | float | None:
    """The amount as a JSON number: an integer when whole."""
    if amount is None:
        return None
    integral = int(amount)
    return integral if integral == amount else float(amount)
