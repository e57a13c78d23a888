"""Settings: the one reader of the environment and of settings files. Arguments beat the environment, the environment beats
the files (`files`), and one model (`model`) has the rules. Everything is read when a run starts, never on import.
"""

from __future__ import annotations

import os
import time
from decimal import Decimal
from typing import Any, NamedTuple, cast

from creditguard.rules.amounts import to_json
from creditguard.rules.secret import SecretText, without_frames
from creditguard.rules.values import SettleTime
from creditguard.settings.defaults import VARIABLES, CurrentSettings
from creditguard.settings.files import CONFIG, SANDBOX, Search, identity, search, working_directory
from creditguard.settings.layers import KEYS, from_environment, layers
from creditguard.settings.plain import PLAIN

__all__ = ["CONFIG", "VARIABLES", "CurrentSettings", "Explanation", "Setting", "current", "explain"]

_NAMES = (*VARIABLES.values(), CONFIG, SANDBOX, "HOME", "XDG_CONFIG_HOME")
_AS_KEPT: tuple[str | bytes, ...] = tuple(map(os.fsencode, _NAMES)) if os.supports_bytes_environ else _NAMES
_GOOD_FOR = 1.0
"""Seconds after which everything is read again."""
_TICK = 50_000_000
"""Nanoseconds within which a file may change twice and show one time of change."""


class _Snapshot:
    """Settings, and what they hold for. Its repr shows nothing: the environment holds the key."""

    __slots__ = ("directory", "environment", "files", "settings", "until")

    directory: str | None
    environment: tuple[object, ...]
    files: list[tuple[str, tuple[int, ...] | None]]
    settings: CurrentSettings
    until: float


_latest: _Snapshot | None = None  # replaced as a whole: signal handlers and other threads see the one or the other


def current() -> CurrentSettings:
    """The settings that are in force now. Raises ConfigurationError, which names the variable, or the file and the field.

    They are read again when a variable or the working directory has changed, when a settings file in use has, and when one
    has appeared in the working directory; after a second whatever has changed (a file elsewhere, the key in a key file).
    """
    return without_frames(_current)


def _current() -> CurrentSettings:
    latest = _latest
    if (
        latest is not None
        and latest.environment == _environment()
        and latest.directory == working_directory()
        and time.monotonic() < latest.until
    ):
        for path, seen in latest.files:
            if identity(path) != seen if seen else os.access(path, os.F_OK):  # a missing file costs half by `access`
                break
        else:
            return latest.settings
    return _read_again()


def _environment() -> tuple[object, ...]:
    """The variables that matter, in a twentieth of the time that `os.environ` takes, which decodes and catches KeyErrors."""
    try:
        return tuple(map(cast("Any", os.environ)._data.get, _AS_KEPT))  # noqa: SLF001
    except AttributeError:  # somebody has put a plain dict in its place
        return tuple(map(os.environ.get, _NAMES))


def _read_again() -> CurrentSettings:
    global _latest  # noqa: PLW0603 - the one cache
    snapshot = _Snapshot()
    snapshot.environment = _environment()
    snapshot.directory = working_directory()
    found = search(snapshot.directory)
    near = (path for path in found.looked_at if os.path.dirname(path) == snapshot.directory)
    snapshot.files = [(path, identity(path)) for path in dict.fromkeys((*near, *(file.path for file in found.files)))]
    new = _read(found)
    # What is equal stays the same object: a guard may keep what it has worked out from it.
    snapshot.settings = _latest.settings if _latest and _latest.settings == new else new
    snapshot.until = time.monotonic() + _GOOD_FOR
    if not any(seen and abs(time.time_ns() - seen[0]) < _TICK for _, seen in snapshot.files):
        _latest = snapshot
    return snapshot.settings


def _read(found: Search) -> CurrentSettings:
    if not found.files and from_environment().keys() <= PLAIN.keys():
        # Plain strings alone, and no file: these few rules do without the model, which takes 90 ms to load.
        (given,) = layers(())
        values = {name: PLAIN[name](one.get_secret_value(), one.name) for name, one in given.items()}
        if "api_key_file" in values:
            values["api_key"] = values.pop("api_key_file")
        return CurrentSettings(**values)
    from creditguard.settings.model import read

    return read()


class Setting(NamedTuple):
    """A setting, its value as JSON has it (a key or a password is `***`), and the variable, or the field and the file, that it
    came from; or `default`."""

    name: str
    value: str | int | float | bool | None
    origin: str


class Explanation(NamedTuple):
    """All settings, and the settings files that were looked for, each with whether it is in use."""

    settings: tuple[Setting, ...]
    files: tuple[tuple[str, bool], ...]


def explain() -> Explanation:
    """The settings that are in force, and where each came from. Raises ConfigurationError, as `current` does."""
    return without_frames(_explain)


def _explain() -> Explanation:
    found = search(working_directory())
    settings, given = _read(found), layers(found.files)
    rows = []
    for name in VARIABLES:
        if name != "api_key_file":
            aliases = KEYS if name == "api_key" else (name,)
            places = (layer[alias].name for layer in given for alias in aliases if alias in layer)
            rows.append(Setting(name, _shown(getattr(settings, name)), next(places, "default")))
    tables = [layer["jobs"] for layer in given if isinstance(layer.get("jobs"), dict)]
    for job, budget in settings.jobs.items():
        places = (table[job]["budget"].name for table in tables if job in table)
        rows.append(Setting(f"jobs.{job}", to_json(budget), next(places)))
    in_use = {file.path for file in found.files}
    return Explanation(tuple(rows), tuple((path, path in in_use) for path in found.looked_at))


def _shown(value: Any) -> Any:
    if isinstance(value, Decimal):
        return to_json(value)
    if isinstance(value, SettleTime):
        return f"stable:{value.seconds:g}" if value.stable else value.seconds
    if isinstance(value, SecretText):
        # Of a ledger that is a file the whole URL, of a server what holds no password.
        scheme = value.get_secret_value().partition(":")[0].lower()
        return {"none": "none", "sqlite": value.get_secret_value(), "postgresql": "postgresql://***"}.get(scheme, "***")
    return value
