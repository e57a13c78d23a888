"""The settings file, merged with the environment by pydantic-settings. Loaded only where there is such a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from creditguard.errors import ConfigurationError


class _Job(BaseModel):
    """`[jobs.NAME]`."""

    model_config = ConfigDict(extra="forbid")

    budget: Any


class _Merged(BaseSettings):
    """The environment over a file. Values stay as they were written: `settings` has the rules for them."""

    model_config = SettingsConfigDict(
        env_prefix="CREDITGUARD_",
        env_ignore_empty=True,
        extra="forbid",
        populate_by_name=True,
    )

    api_key: Any = Field(default=None, validation_alias="APIMALL_API_KEY")
    api_key_file: Any = Field(default=None, validation_alias="APIMALL_API_KEY_FILE")
    account: Any = None
    base_url: Any = None
    timeout: Any = None
    ledger: Any = None
    on_short: Any = None
    on_unreadable: Any = None
    keep: Any = None
    settle: Any = None
    min_interval: Any = None
    max_age: Any = None
    log_format: Any = None
    jobs: dict[str, _Job] = {}


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that are set, as they were written, and the budgets by job name.

    Raises ConfigurationError for a file that cannot be read, is not TOML, or has a field that does not exist.
    """

    in_project = path.name == "pyproject.toml"

    class FromFile(_Merged):
        if in_project:
            model_config = SettingsConfigDict(pyproject_toml_table_header=("tool", "creditguard"))

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - these names are pydantic's interface
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            if in_project:
                return env_settings, PyprojectTomlConfigSettingsSource(settings_cls, toml_file=path)
            return env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    try:
        merged = FromFile()
    except ValidationError as error:
        # A misspelt field first: what it leaves missing is not what has to be mended.
        first = min(
            error.errors(include_url=False, include_input=False), key=lambda one: one["type"] != "extra_forbidden"
        )
        field = ".".join(str(part) for part in first["loc"])
        wrong = "is not a setting of creditguard" if first["type"] == "extra_forbidden" else f"is wrong: {first['msg']}"
        raise ConfigurationError(f"{field} in {path.name} {wrong}", field) from None
    except (OSError, SettingsError, ValueError) as error:  # ValueError: not TOML, not UTF-8
        text = str(error).splitlines()[0]
        raise ConfigurationError(f"{path.name} cannot be read: {text}", path.name) from None
    values = {name: getattr(merged, name) for name in merged.model_fields_set if name != "jobs"}
    return values, {name: job.budget for name, job in merged.jobs.items()}
