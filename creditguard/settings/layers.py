"""What is set, and where: the environment, and beneath it each settings file, as layers of which each beats those after it.

Two rules look at a layer as a whole. A layer holds one key, not two. And a file that was found by the working directory may say
where its own key goes, and no other: whoever runs a job in somebody's checkout sends their key, or their ledger's password,
nowhere by that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from creditguard.errors import ConfigurationError
from creditguard.rules.secret import SecretText
from creditguard.rules.text import printable
from creditguard.settings.defaults import VARIABLES
from creditguard.settings.files import CONFIG, SettingsFile, read, user_file

Layer: TypeAlias = "dict[str, Any]"
"""Setting: what was given. Under `jobs`, where they are tables as they should be: job: field: what was given."""

KEYS = ("api_key", "api_key_file")
DESTINATIONS = ("base_url", "ledger")
"""The settings that say where a key or a password goes."""
_SERVER = re.compile(r"\s*postgres", re.IGNORECASE)
_WITH_PASSWORD = re.compile(
    r"\s*postgres(ql)?://[^:@/?#]*:[^@/?#]+@[^?]*(\?(?!.*(pass|%)).*)?", re.IGNORECASE | re.DOTALL
)
"""A URL for which libpq does not look for a password elsewhere: PGPASSWORD goes to any server that asks for it."""


class Given(SecretText):
    """A value as it was written, and the name of its place: a variable, or a field and its file. Shows the name alone."""

    __slots__ = ("name",)

    def __init__(self, value: Any, name: str) -> None:
        super().__init__(value)
        self.name: str = name

    def __repr__(self) -> str:
        return f"<given by {self.name}>"


def layers(files: Iterable[SettingsFile]) -> list[Layer]:
    """The environment and the files. Raises ConfigurationError for a file that cannot be read, or that breaks a rule."""
    environment = from_environment()
    found = [environment]
    for file in files:
        layer = {name: _given(name, value, file) for name, value in read(file).items()}
        if not file.trusted:
            _refuse_destinations(layer, environment, file)
        found.append(layer)
    has_key = False
    for layer in found:
        keys = [layer[name] for name in KEYS if name in layer]
        if len(keys) == 2 and keys[0].get_secret_value():
            raise ConfigurationError(f"{keys[0].name} and {keys[1].name} are both set: set one of them", keys[0].name)
        if has_key:  # a key file beats the key of a lower layer, and the other way round
            for name in KEYS:
                layer.pop(name, None)
        has_key = has_key or bool(keys)
    return found


def from_environment() -> Layer:
    """What the variables say. An empty one counts as not set, but for the key: that is a secret that did not arrive."""
    return {
        name: Given(os.environ[variable], variable)
        for name, variable in VARIABLES.items()
        if os.environ.get(variable) or (name == "api_key" and variable in os.environ)
    }


def _given(name: str, value: object, file: SettingsFile) -> Any:
    if name == "jobs" and isinstance(value, dict):
        return {job: _given_job(job, table, file) for job, table in value.items()}
    if name == "api_key_file" and isinstance(value, str) and value.strip():
        value = os.path.join(os.path.dirname(file.path), os.path.expanduser(value))
    return Given(value, f"{printable(name)} in {file.name}")


def _given_job(job: str, table: object, file: SettingsFile) -> Any:
    header = f"[jobs.{printable(job)}]"
    if not table or not isinstance(table, dict):
        return Given(table, f"{header} in {file.name}")
    return {field: Given(value, f"{header} {printable(field)} in {file.name}") for field, value in table.items()}


def _refuse_destinations(layer: Layer, environment: Mapping[str, Any], file: SettingsFile) -> None:
    own_key = "api_key" in layer
    other_key = any(name in environment for name in KEYS)
    for name in DESTINATIONS:
        if name not in layer:
            continue
        borrows = other_key or (name == "ledger" and _needs_a_password(layer[name].get_secret_value()))
        if not own_key or (borrows and name not in environment):
            raise ConfigurationError(
                f"{layer[name].name} is refused: a file that is found by the working directory may say where its own key"
                f" and password go, and no others. Set {VARIABLES[name]}, or put {name} into {user_file() or CONFIG}, or set"
                f" {CONFIG}={printable(file.path)} if you trust all of that file",
                layer[name].name,
            )


def _needs_a_password(ledger: object) -> bool:
    """Whether it is a server's URL without its own password."""
    return isinstance(ledger, str) and bool(_SERVER.match(ledger)) and not _WITH_PASSWORD.fullmatch(ledger)
