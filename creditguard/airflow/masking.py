"""Keep keys out of Airflow's logs, XComs and rendered templates, wherever the key came from.

Airflow masks what it reads from a connection. A key from the environment or from a file it does not know about.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import cast

from creditguard.settings import CurrentSettings

# Where Airflow has it, by version: with the newest providers, 3 with those of its time, 2 with those of its time.
_HOMES = ("airflow.providers.common.compat.sdk", "airflow.sdk.log", "airflow.utils.log.secrets_masker")

_masked: set[int] = set()  # hashes, so that this module holds no key


@cache
def _mask_secret() -> Callable[[str], object]:
    for home in _HOMES:
        with contextlib.suppress(ImportError, AttributeError):
            return cast("Callable[[str], object]", import_module(home).mask_secret)
    raise ImportError("this Airflow is older than any that creditguard supports: it masks no secrets")


def mask(key: str | None) -> None:
    """Have Airflow show `***` in place of the key, in this process and in the one that writes its log."""
    if key and hash(key) not in _masked:
        _mask_secret()(key)
        _masked.add(hash(key))


def mask_settings(settings: CurrentSettings) -> None:
    """As `mask`, for the key of the environment or the settings file."""
    if settings.api_key:
        mask(settings.api_key.get_secret_value())


def mask_environment() -> None:
    """As `mask_settings`, when a guard is made, as a rule while the DAG file is loaded: then even what a task logs before its
    first run is masked."""
    from creditguard import settings

    # Settings that cannot be used are reported when a run starts; a log set-up without masks is Airflow's affair.
    with contextlib.suppress(Exception):
        mask_settings(settings.current())
