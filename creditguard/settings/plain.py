"""The rules of those settings that are plain strings, which serve with the model and, where there is nothing else, without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from creditguard.errors import ConfigurationError
from creditguard.rules.arguments import parse_name, parse_text
from creditguard.rules.secret import SecretText
from creditguard.rules.text import printable
from creditguard.settings.files import contents, only_the_systems
from creditguard.sources.apimall_checks import check_base_url, check_key

LARGEST_KEY_FILE = 1 << 16


def parse_key(value: object, name: str) -> SecretText:
    """A key that can be sent."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be text", name)
    return SecretText(check_key(value, name))


def parse_key_file(value: object, name: str) -> SecretText:
    """The key in the file of that path."""
    path = os.path.expanduser(parse_text(value, name))
    shown = printable(path)
    try:
        text = contents(path, LARGEST_KEY_FILE).decode().strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name}: {shown} does not hold a key as text", name) from None
    except OSError as error:
        only_the_systems(error)
        raise ConfigurationError(f"{name}: {shown} cannot be read: {error.strerror}", name) from None
    if not text:
        raise ConfigurationError(f"{name}: {shown} is empty, it should hold the API key", name)
    return parse_key(text, f"the key in {shown} ({name})")


def parse_base_url(value: object, name: str) -> str:
    """A gateway's URL, in its plain form."""
    return check_base_url(parse_text(value, name), name)


def parse_ledger(value: object, name: str) -> SecretText:
    """A ledger's URL, which whoever opens the ledger takes apart."""
    return SecretText(parse_text(value, name))


PLAIN: dict[str, Callable[[object, str], Any]] = {
    "api_key": parse_key,
    "api_key_file": parse_key_file,
    "account": parse_name,
    "base_url": parse_base_url,
    "ledger": parse_ledger,
}
