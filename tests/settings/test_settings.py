"""What settings are: their defaults, their types, and one set of rules whether or not the model is loaded."""

from __future__ import annotations

import dataclasses
import os
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from creditguard import ConfigurationError, InsufficientCredits, guard, settings
from creditguard.rules.secret import SecretText
from creditguard.rules.values import SettleTime
from creditguard.settings.layers import DESTINATIONS, KEYS
from creditguard.settings.model import Settings
from creditguard.settings.plain import PLAIN

EVERYTHING = {
    "APIMALL_API_KEY": "sk-everything",
    "CREDITGUARD_ACCOUNT": " pool ",
    "CREDITGUARD_BASE_URL": "https://Gateway.example/api/v1/",
    "CREDITGUARD_TIMEOUT": "2.5",
    "CREDITGUARD_LEDGER": "none",
    "CREDITGUARD_ON_SHORT": "warn",
    "CREDITGUARD_ON_UNREADABLE": "abort",
    "CREDITGUARD_KEEP": "-0.1",
    "CREDITGUARD_SETTLE": "stable:120",
    "CREDITGUARD_MIN_INTERVAL": "0",
    "CREDITGUARD_MAX_AGE": "60",
    "CREDITGUARD_SHRINK": "off",
    "CREDITGUARD_LOG_FORMAT": "none",
}


def test_the_model_the_variables_and_what_is_in_force_have_the_same_names_and_defaults(places):
    assert list(Settings.model_fields) == [*VARIABLES_AND_JOBS]
    in_force = [field.name for field in dataclasses.fields(settings.CurrentSettings)]
    assert sorted(in_force) == sorted(set(VARIABLES_AND_JOBS) - {"api_key_file"})
    model = Settings()
    for name in in_force:
        assert getattr(settings.CurrentSettings(), name) == getattr(model, name)
    assert set(PLAIN) | set(KEYS) | set(DESTINATIONS) <= set(settings.VARIABLES)


VARIABLES_AND_JOBS = [*settings.VARIABLES, "jobs"]


def test_nothing_set_means_the_defaults(places):
    assert settings.current() == settings.CurrentSettings(
        api_key=None, account=None, base_url="https://gateway.apimall.ai", timeout=10.0, ledger=None, on_short="abort",
        on_unreadable=None, keep=Decimal(0), settle=SettleTime(), min_interval=15.0, max_age=0.0, shrink=None,
        log_format=None, jobs={},
    )  # fmt: skip


def test_each_variable_has_its_type(places, monkeypatch):
    for variable, value in EVERYTHING.items():
        monkeypatch.setenv(variable, value)
    assert set(EVERYTHING) == set(settings.VARIABLES.values()) - {"APIMALL_API_KEY_FILE"}
    assert settings.current() == settings.CurrentSettings(
        api_key=SecretText("sk-everything"), account="pool", base_url="https://gateway.example", timeout=2.5,
        ledger=SecretText("none"), on_short="warn", on_unreadable="abort", keep=Decimal("-0.1"),
        settle=SettleTime(120.0, stable=True), min_interval=0.0, max_age=60.0, shrink=False, log_format="none",
    )  # fmt: skip
    model = Settings()
    assert model.api_key == SecretStr("sk-everything")
    assert model.ledger == SecretStr("none")
    assert "everything" not in repr(model)


def test_arguments_of_the_model_beat_the_environment_and_have_the_same_rules(places, monkeypatch):
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "2.5")
    assert Settings(timeout="7").timeout == 7.0
    with pytest.raises(ValueError, match="timeout must be more than 0"):
        Settings(timeout=0)


@pytest.mark.parametrize(("value", "shrink"), [("'on'", True), ("'off'", False), ("true", True), ("false", False)])
def test_shrink_is_on_or_off(places, value, shrink):
    places.own.write_text(f"shrink = {value}")
    assert settings.current().shrink is shrink


def test_an_empty_variable_counts_as_not_set(places, monkeypatch):
    for variable in settings.VARIABLES.values():
        monkeypatch.setenv(variable, "")
    monkeypatch.delenv("APIMALL_API_KEY")
    assert settings.current() == settings.CurrentSettings()


def test_variables_of_other_programs_are_not_ours(places, monkeypatch):
    for name in (
        "API_KEY",
        "JOBS",
        "jobs",
        "TIMEOUT",
        "CREDITGUARD_JOBS",
        "CREDITGUARD_API_KEY",
        "creditguard_timeout",
    ):
        monkeypatch.setenv(name, "77")
    monkeypatch.setenv("CREDITGUARD_KEEP", "1")  # so that the model is loaded
    assert settings.current() == settings.CurrentSettings(keep=Decimal(1))


VALUES = st.sampled_from(
    [
        "",
        "0",
        "5",
        "1.5",
        "-1",
        "abort",
        "warn",
        "json",
        "none",
        "on",
        "https://a.example",
        "x y",
        "nan",
        "key",
        "/none",
    ]
)


@hypothesis_settings(deadline=None)  # where a file is read, pydantic is loaded
@given(st.dictionaries(st.sampled_from(sorted(settings.VARIABLES)), VALUES))
def test_settings_are_the_same_whether_or_not_the_model_is_loaded(said):
    """For any environment: with an empty settings file, which loads the model, and without one."""
    kept = {name: os.environ.pop(name) for name in settings.VARIABLES.values() if name in os.environ}
    os.environ.update({settings.VARIABLES[name]: value for name, value in said.items()})
    before = Path.cwd()
    try:
        with TemporaryDirectory() as without, TemporaryDirectory() as with_file:
            Path(with_file, "creditguard.toml").touch()
            answers = []
            for place in (without, with_file):
                os.chdir(place)
                try:
                    answers.append(settings.current())
                except ConfigurationError as error:
                    answers.append(str(error))
            os.chdir(before)
    finally:
        for name in said:
            os.environ.pop(settings.VARIABLES[name], None)
        os.environ.update(kept)
    assert answers[0] == answers[1]


def test_budgets_by_job_name_serve_guards_and_arguments_beat_them(gateway, places, monkeypatch):
    places.own.write_text("keep = 100\n[jobs.nightly]\nbudget = 500\n")
    with pytest.raises(InsufficientCredits) as caught, guard("nightly"):
        pass
    assert (caught.value.needs, caught.value.keep) == (500, 100)
    with guard("nightly", budget=50, keep=0):
        pass
    monkeypatch.setenv("CREDITGUARD_KEEP", "0")
    with guard("nightly", budget=120):
        pass
    monkeypatch.setenv("CREDITGUARD_ON_SHORT", "warn")
    with guard("nightly"):
        pass
    with pytest.raises(InsufficientCredits), guard("nightly", on_short="abort"):
        pass


@pytest.mark.parametrize("name", ["json", "none"])
def test_the_command_line_logs_as_the_settings_say(gateway, places, check, monkeypatch, name):
    monkeypatch.setenv("CREDITGUARD_LOG_FORMAT", name)
    monkeypatch.setenv("CREDITGUARD_ON_SHORT", "warn")
    gateway.set_credits(1)
    code, lines = check()
    assert code == 0
    assert len(lines) == (name == "json")
