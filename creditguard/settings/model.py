"""The model of all settings: their types, rules, defaults and descriptions, for the environment and for files alike.

Loaded only where there is more to read than plain strings (`settings.current`): it takes longer than a whole `creditguard check`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from creditguard.errors import ConfigurationError
from creditguard.rules import arguments
from creditguard.rules.secret import SecretText
from creditguard.rules.values import OnShort, SettleTime
from creditguard.settings import plain
from creditguard.settings.defaults import DEFAULTS, CurrentSettings
from creditguard.settings.files import search, working_directory
from creditguard.settings.layers import Given, layers


def _rule(parse: Callable[[object, str], Any]) -> BeforeValidator:
    """The rule `parse` as pydantic calls it, told under which name the value was given."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        given = value if isinstance(value, Given) else Given(value, str(info.field_name))
        parsed = parse(given.get_secret_value(), given.name)
        return SecretStr(parsed.get_secret_value()) if isinstance(parsed, SecretText) else parsed

    return BeforeValidator(validate)


Seconds = Annotated[float, _rule(arguments.parse_seconds)]
Policy: Any = _rule(arguments.parse_policy)


class Job(BaseModel):
    """`[jobs.NAME]` of a settings file."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    budget: Annotated[Decimal, _rule(arguments.parse_budget)] = Field(description="credits that the job may need")


class Settings(BaseSettings):
    """The settings of the environment and of the settings files that there are."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, case_sensitive=True, validate_default=False
    )

    # In `json_schema_extra`: what the documents give as the default, where it is no value.
    api_key: Annotated[SecretStr | None, _rule(plain.parse_key)] = Field(
        default=None, description="the API Mall key; set this or the next, not both", json_schema_extra={"default": "-"}
    )
    api_key_file: Annotated[SecretStr | None, _rule(plain.parse_key_file)] = Field(
        default=None,
        description="a regular file of at most 64 KiB that holds the key; in a settings file, relative to that file",
        json_schema_extra={"default": "-"},
    )
    account: Annotated[str | None, _rule(arguments.parse_name)] = Field(
        default=None,
        description="the account's name, where several keys draw on one pool, or keys rotate",
        json_schema_extra={"default": "a digest of source, gateway and key"},
    )
    base_url: Annotated[str, _rule(plain.parse_base_url)] = Field(
        default=DEFAULTS.base_url, description="the gateway: https, or http to a loopback address"
    )
    timeout: Annotated[float, _rule(arguments.parse_timeout)] = Field(
        default=DEFAULTS.timeout,
        description="seconds for one balance reading, retries included; more than 0, at most 600",
    )
    ledger: Annotated[SecretStr | None, _rule(plain.parse_ledger)] = Field(
        default=None,
        description="where holds are kept: `none`, `sqlite:////var/lib/jobs/ledger.db`, `postgresql://...`",
        json_schema_extra={"default": "SQLite in your state directory"},
    )
    on_short: Annotated[OnShort, Policy] = Field(
        default=DEFAULTS.on_short, description="what to do with a run that is short of credits: `abort` or `warn`"
    )
    on_unreadable: Annotated[OnShort | None, Policy] = Field(
        default=None,
        description="what to do when the balance or the ledger cannot be read: `abort` or `warn`",
        json_schema_extra={"default": "as `on_short`"},
    )
    keep: Annotated[Decimal, _rule(arguments.parse_keep)] = Field(
        default=DEFAULTS.keep, description="credits that must stay on the account; negative for an overdraft"
    )
    settle: Annotated[SettleTime, _rule(arguments.parse_settle)] = Field(
        default=DEFAULTS.settle,
        description="seconds to wait after a job before the last reading; or `stable`: read until two readings agree, "
        "for a minute (`stable:120`: two) at most",
        json_schema_extra={"default": "0"},
    )
    min_interval: Seconds = Field(
        default=DEFAULTS.min_interval,
        description="politeness: seconds between two readings of a run, its first and last apart",
    )
    max_age: Seconds = Field(
        default=DEFAULTS.max_age, description="seconds for which another process's reading may serve an admission"
    )
    shrink: Annotated[bool | None, _rule(arguments.parse_switch)] = Field(
        default=None,
        description="`on` or `off`: whether a hold shrinks by what its job records",
        json_schema_extra={"default": "as the source says"},
    )
    log_format: Annotated[Literal["json", "console", "none"] | None, _rule(arguments.parse_log_format)] = Field(
        default=None,
        description="`json`, `console` or `none`, for events on stderr",
        json_schema_extra={"default": "`console` on a terminal, else `json`"},
    )
    jobs: dict[str, Job] = Field(default={}, description="budgets by job name; only in files")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments beat the environment, the environment beats the files, field by field."""
        found = layers(search(working_directory()).files)
        return init_settings, *(InitSettingsSource(settings_cls, layer) for layer in found)


def read() -> CurrentSettings:
    """The settings that are in force. Raises ConfigurationError, which names the variable, or the file and the field."""
    try:
        settings = Settings()
    except ValidationError as error:
        raise _in_one_line(error) from None
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    key = values.pop("api_key_file", None)
    values |= {"jobs": {name: job.budget for name, job in settings.jobs.items()}, "api_key": settings.api_key or key}
    return CurrentSettings(**{name: _hidden(value) for name, value in values.items()})


def _hidden(value: Any) -> Any:
    return SecretText(value.get_secret_value()) if isinstance(value, SecretStr) else value


def _in_one_line(error: ValidationError) -> ConfigurationError:
    # A misspelt field first: what it leaves missing is not what has to be mended.
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigurationError):
        return ConfigurationError(*cause.args)
    name = first["input"].name
    if first["type"] != "extra_forbidden":
        return ConfigurationError(f"{name} must be a table: [jobs.NAME] with budget = 500 below it", name)
    known = Job.model_fields if first["loc"][0] == "jobs" else Settings.model_fields
    guesses = get_close_matches(str(first["loc"][-1]), known, 1)
    hint = f"; did you mean {guesses[0]}?" if guesses else ""
    return ConfigurationError(f"{name} is not a setting of creditguard{hint}", name)
