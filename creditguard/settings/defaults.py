"""The settings that are in force, their defaults, and the variables that they are read from. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from creditguard.rules.amounts import ZERO
from creditguard.rules.secret import SecretText
from creditguard.rules.values import OnShort, SettleTime
from creditguard.sources.apimall_checks import DEFAULT_BASE_URL

VARIABLES = {
    "api_key": "APIMALL_API_KEY",
    "api_key_file": "APIMALL_API_KEY_FILE",
    "account": "CREDITGUARD_ACCOUNT",
    "base_url": "CREDITGUARD_BASE_URL",
    "timeout": "CREDITGUARD_TIMEOUT",
    "ledger": "CREDITGUARD_LEDGER",
    "on_short": "CREDITGUARD_ON_SHORT",
    "on_unreadable": "CREDITGUARD_ON_UNREADABLE",
    "keep": "CREDITGUARD_KEEP",
    "settle": "CREDITGUARD_SETTLE",
    "min_interval": "CREDITGUARD_MIN_INTERVAL",
    "max_age": "CREDITGUARD_MAX_AGE",
    "shrink": "CREDITGUARD_SHRINK",
    "log_format": "CREDITGUARD_LOG_FORMAT",
}
"""Setting, as it is called in files and in `Settings`: variable."""


@dataclass(frozen=True, slots=True)
class CurrentSettings:
    """What arguments that are left out are taken from. None: nothing was set, and the default of the docs applies.

    Times are seconds, amounts credits. Neither a repr nor iteration shows the key or the ledger's URL.
    """

    api_key: SecretText | None = None
    """The key, from `api_key` or from the file that `api_key_file` names."""
    account: str | None = None
    base_url: str = DEFAULT_BASE_URL
    timeout: float = 10.0
    ledger: SecretText | None = None
    on_short: OnShort = "abort"
    on_unreadable: OnShort | None = None
    keep: Decimal = ZERO
    settle: SettleTime = SettleTime()  # noqa: RUF009 - a tuple, which nobody can change
    min_interval: float = 15.0
    max_age: float = 0.0
    shrink: bool | None = None
    log_format: Literal["json", "console", "none"] | None = None
    jobs: Mapping[str, Decimal] = field(default_factory=dict)
    """Budgets by job name."""


DEFAULTS = CurrentSettings()
