"""`settings.explain()`: each setting, its value, where it came from, and the files that were looked for."""

from __future__ import annotations

import json

import pytest

from creditguard import ConfigurationError, settings


def test_each_setting_and_where_it_came_from(places, monkeypatch):
    monkeypatch.setenv("APIMALL_API_KEY_FILE", "~/key")
    (places.home / "key").write_text("sk-0123456789")
    monkeypatch.setenv("CREDITGUARD_LEDGER", "sqlite:////var/lib/jobs/ledger.db")
    monkeypatch.setenv("CREDITGUARD_KEEP", "2.50")
    places.user.write_text(
        "keep = 3\nsettle = 'stable:120'\nshrink = 'off'\n[jobs.a]\nbudget = 1\n[jobs.b]\nbudget = '0.5'"
    )
    places.own.write_text("max_age = 5\n[jobs.a]\nbudget = 2")
    explained = settings.explain()
    assert {name: (value, origin) for name, value, origin in explained.settings} == {
        "api_key": ("***", "APIMALL_API_KEY_FILE"),
        "account": (None, "default"),
        "base_url": ("https://gateway.apimall.ai", "default"),
        "timeout": (10.0, "default"),
        "ledger": ("sqlite:////var/lib/jobs/ledger.db", "CREDITGUARD_LEDGER"),
        "on_short": ("abort", "default"),
        "on_unreadable": (None, "default"),
        "keep": (2.5, "CREDITGUARD_KEEP"),
        "settle": ("stable:120", f"settle in {places.user}"),
        "min_interval": (15.0, "default"),
        "max_age": (5.0, "max_age in creditguard.toml"),
        "shrink": (False, f"shrink in {places.user}"),
        "log_format": (None, "default"),
        "jobs.a": (2, "[jobs.a] budget in creditguard.toml"),
        "jobs.b": (0.5, f"[jobs.b] budget in {places.user}"),
    }
    assert explained.files == ((str(places.own), True), (str(places.user), True), (str(places.system), False))
    assert json.loads(json.dumps(explained)) == [
        [list(row) for row in explained.settings],
        [list(row) for row in explained.files],
    ]


def test_a_mistake_that_a_file_above_overrides_is_passed_over(places):
    places.own.write_text("[jobs.a]\nbudget = 1")
    places.user.write_text("jobs = 3")
    places.system.write_text("[jobs.b]\nbudget = 2")
    assert settings.current().jobs == {"a": 1, "b": 2}
    origins = {name: origin for name, _, origin in settings.explain().settings if name.startswith("jobs")}
    assert origins == {
        "jobs.a": "[jobs.a] budget in creditguard.toml",
        "jobs.b": f"[jobs.b] budget in {places.system}",
    }


def test_where_nothing_is_set(places):
    (places.work / "pyproject.toml").write_text("[project]\nname = 'x'")
    explained = settings.explain()
    assert {setting.origin for setting in explained.settings} == {"default"}
    looked = [places.work / "creditguard.toml", places.work / "pyproject.toml"]
    looked += [places.home / "creditguard.toml", places.home / "pyproject.toml", places.user, places.system]
    assert explained.files == tuple((str(path), False) for path in looked)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("none", "none"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("postgresql://me:hush@db/x", "postgresql://***"),
        ("hush", "***"),
    ],
)
def test_a_ledger_is_shown_without_a_password(places, monkeypatch, url, shown):
    monkeypatch.setenv("CREDITGUARD_LEDGER", url)
    assert next(setting.value for setting in settings.explain().settings if setting.name == "ledger") == shown


def test_what_is_wrong_is_told_as_ever(places, monkeypatch):
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError, match="CREDITGUARD_TIMEOUT"):
        settings.explain()
