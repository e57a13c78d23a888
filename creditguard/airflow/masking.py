"""Keep keys out of Airflow's logs, XComs and rendered templates, wherever the key came from.

Airflow masks what it reads from a connection. A key from the environment or from a file it does not know about.
"""

from __future__ import annotations

import contextlib

from airflow.providers.common.compat.sdk import mask_secret

from creditguard.settings import CurrentSettings

_masked: set[int] = set()  # hashes, so that this module holds no key


def mask(key: str | None) -> None:
    """Have Airflow show `***` in place of the key, in this process and in the one that writes its log."""
    if key and hash(key) not in _masked:
        mask_secret(key)
        _masked.add(hash(key))


def mask_settings(settings: CurrentSettings) -> None:
    """As `mask`, for the key of the environment or the settings file."""
    if settings.api_key:
        mask(settings.api_key.get_secret_value())


def mask_environment() -> None:
    """As `mask_settings`, at import: from then on even what a task logs before its first guard is masked."""
    from creditguard import settings

    with contextlib.suppress(
        Exception
    ):  # unusable settings are told when a run starts; a log set-up without masks is Airflow's
        mask_settings(settings.current())
