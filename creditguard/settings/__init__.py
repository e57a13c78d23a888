"""Settings, read once from the environment and from a settings file: the only module that reads the environment.

Arguments beat the environment, the environment beats the file. The file is `creditguard.toml`, or `[tool.creditguard]` in
`pyproject.toml`, in the working directory; it is read by pydantic-settings (`settings_file`). Where there is no such file the
environment is all there is, and pydantic, which takes longer to load than a whole `creditguard check`, is left alone. Both
ways end in the same rules, the `_parse_*` functions below.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from creditguard.errors import ConfigurationError
from creditguard.rules.amounts import rounded, to_credits
from creditguard.rules.values import OnOverrun, OnShort, SettleTime

T = TypeVar("T")

NO_WAIT = SettleTime()
DEFAULT_BASE_URL = "https://gateway.apimall.ai"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment and the file say. None: nothing was said, and the default of the docs applies."""

    api_key: str | None = field(default=None, repr=False)
    account: str | None = None
    base_url: str = DEFAULT_BASE_URL
    timeout: float = 10.0
    ledger: str | None = field(default=None, repr=False)  # may hold a password
    on_short: OnShort = "abort"
    on_unreadable: OnShort | None = None
    keep: Decimal = Decimal(0)
    settle: SettleTime = NO_WAIT
    min_interval: float = 15.0
    max_age: float = 0.0
    log_format: Literal["json", "console"] | None = None
    jobs: Mapping[str, Decimal] = field(default_factory=dict)
    """Budgets by job name."""


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
    "log_format": "CREDITGUARD_LOG_FORMAT",
}

_cache: dict[tuple[object, ...], Settings] = {}


def current() -> Settings:
    """The settings for this environment and working directory. Raises ConfigurationError, naming the variable or field."""
    try:
        directory = os.getcwd()  # noqa: PTH109 - a string, for a key that is made at every run
    except OSError:
        directory = ""  # the working directory was removed under us: no settings file, then
    key = (directory, *(os.environ.get(name) for name in VARIABLES.values()))
    settings = _cache.get(key)
    if settings is None:
        settings = _cache[key] = load(Path(directory) if directory else None)
    return settings


def load(directory: Path | None) -> Settings:
    """Read the settings anew; `directory` is where a settings file is looked for."""
    environ = os.environ
    path = _settings_file(directory) if directory else None
    raw: dict[str, Any] = {name: environ[var] for name, var in VARIABLES.items() if environ.get(var)}
    jobs: Mapping[str, Any] = {}
    if path is not None:
        from creditguard.settings.files import read

        raw, jobs = read(path)
    if environ.get(VARIABLES["api_key"]) == "":
        raw["api_key"] = ""  # set, to nothing: a secret that did not arrive, to be told and not passed over

    def name_of(setting: str) -> str:
        variable = VARIABLES[setting]
        return f"{setting} in {path.name}" if path and variable not in environ else variable

    return _settings(raw, jobs, name_of)


def _settings(raw: Mapping[str, Any], jobs: Mapping[str, Any], name_of: Callable[[str], str]) -> Settings:
    def parsed(setting: str, parse: Callable[[object, str], T], default: T) -> T:
        return parse(raw[setting], name_of(setting)) if setting in raw else default

    key = parsed("api_key", _parse_key, None)
    if key is None:
        key = parsed("api_key_file", _parse_key_file, None)
    return Settings(
        api_key=key,
        account=parsed("account", parse_name, None),
        base_url=parsed("base_url", _parse_base_url, DEFAULT_BASE_URL),
        timeout=parsed("timeout", _parse_timeout, 10.0),
        ledger=parsed("ledger", _parse_text, None),
        on_short=parsed("on_short", parse_policy, "abort"),
        on_unreadable=parsed("on_unreadable", parse_policy, None),
        keep=parsed("keep", _parse_keep, Decimal(0)),
        settle=parsed("settle", parse_settle, NO_WAIT),
        min_interval=parsed("min_interval", parse_seconds, 15.0),
        max_age=parsed("max_age", parse_seconds, 0.0),
        log_format=parsed("log_format", _parse_log_format, None),
        jobs={job: rounded(to_credits(budget, f"[jobs.{job}] budget")) for job, budget in jobs.items()},
    )


def _settings_file(directory: Path) -> Path | None:
    own = directory / "creditguard.toml"
    if own.is_file():
        return own
    project = directory / "pyproject.toml"
    try:
        return project if b"[tool.creditguard" in project.read_bytes() else None
    except OSError:
        return None


def _parse_text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be text", name)
    return value.strip()


def _parse_key(value: object, name: str) -> str:
    from creditguard.sources.apimall_checks import check_key

    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be text", name)
    return check_key(value, name)


def _parse_key_file(value: object, name: str) -> str:
    path = Path(_parse_text(value, name)).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name}: {path} does not hold a key as text", name) from None
    except OSError as error:
        raise ConfigurationError(f"{name}: {path} cannot be read: {error.strerror}", name) from None
    if not text.strip():
        raise ConfigurationError(f"{name}: {path} is empty, it should hold the API key", name)
    return _parse_key(text.strip(), f"the key in {path} ({name})")


def _parse_base_url(value: object, name: str) -> str:
    from creditguard.sources.apimall_checks import check_base_url

    return check_base_url(_parse_text(value, name), name)


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
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds <= 604800:
        raise ConfigurationError(f"{name} must be a number of seconds, 0 or more, not {value!r}", name)
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
        message = f"{name} must be a number of seconds, 0 or more, or 'stable', or 'stable:120', not {value!r}"
        raise ConfigurationError(message, name) from None


def parse_overrun(value: object, name: str) -> OnOverrun:
    """`warn` or `stop`."""
    if value == "warn" or value == "stop":  # noqa: PLR1714 - narrows the type
        return value
    raise ConfigurationError(f"{name} must be 'warn' or 'stop', not {value!r}", name)


def parse_thresholds(value: object, name: str) -> tuple[Decimal, ...]:
    """Shares of a budget, in rising order, each once: more than 0, and at most 100."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be shares of the budget such as (0.5, 0.8, 1.0), not {value!r}", name)
    shares = {rounded(to_credits(share, name)) for share in value}
    if any(not 0 < share <= 100 for share in shares):
        raise ConfigurationError(
            f"{name} must be shares of the budget, more than 0 and at most 100, not {value!r}", name
        )
    return tuple(sorted(shares))


def _parse_timeout(value: object, name: str) -> float:
    seconds = parse_seconds(value, name)
    if not 0 < seconds <= 600:
        raise ConfigurationError(f"{name} must be more than 0 and at most 600 seconds, not {value!r}", name)
    return seconds


def parse_policy(value: object, name: str) -> OnShort:
    """`abort` or `warn`."""
    if value == "abort" or value == "warn":  # noqa: PLR1714 - narrows the type
        return value
    raise ConfigurationError(f"{name} must be 'abort' or 'warn', not {value!r}", name)


def _parse_keep(value: object, name: str) -> Decimal:
    return rounded(to_credits(cast("Any", value), name, negative=True))


def _parse_log_format(value: object, name: str) -> Literal["json", "console"]:
    if value == "json" or value == "console":  # noqa: PLR1714 - narrows the type
        return value
    raise ConfigurationError(f"{name} must be 'json' or 'console', not {value!r}", name)
