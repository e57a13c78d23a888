"""Settings: arguments beat the environment, the environment beats the file; both readers agree; mistakes are told by name."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from creditguard import ConfigurationError, InsufficientCredits, guard
from creditguard import settings as settings_module
from creditguard.settings import VARIABLES, load


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_said_means_the_defaults(directory):
    settings = load(directory)
    assert settings.base_url == "https://gateway.apimall.ai"
    assert (settings.timeout, settings.on_short, settings.on_unreadable, settings.keep) == (10.0, "abort", None, 0)
    assert (settings.api_key, settings.account, settings.ledger, dict(settings.jobs)) == (None, None, None, {})


FILE = """
api_key = "from-the-file"
base_url = "https://file.example"
timeout = 3
keep = 2.5
on_short = "warn"
[jobs.nightly-enrich]
budget = 500
[jobs."with space"]
budget = "0.5"
"""


@pytest.mark.parametrize("name", ["creditguard.toml", "pyproject.toml"])
def test_a_settings_file(directory, name, monkeypatch):
    text = FILE
    if name == "pyproject.toml":
        text = "[tool.creditguard]" + FILE.replace("[jobs", "[tool.creditguard.jobs")
    (directory / name).write_text(text)
    settings = load(directory)
    assert settings.api_key == "from-the-file"
    assert (settings.base_url, settings.timeout, settings.keep) == ("https://file.example", 3.0, Decimal("2.5"))
    assert dict(settings.jobs) == {"nightly-enrich": 500, "with space": Decimal("0.5")}
    monkeypatch.setenv("APIMALL_API_KEY", "from-the-environment")
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "7")
    monkeypatch.setenv("CREDITGUARD_KEEP", "")
    settings = load(directory)
    assert (settings.api_key, settings.timeout, settings.keep) == ("from-the-environment", 7.0, Decimal("2.5"))


def test_a_pyproject_of_something_else_is_not_ours(directory):
    (directory / "pyproject.toml").write_text("this is [ not toml, and not ours")
    assert load(directory).timeout == 10


def test_budgets_by_job_name_serve_guards_and_arguments_beat_them(gateway, directory, monkeypatch):
    (directory / "creditguard.toml").write_text("keep = 100\n[jobs.nightly]\nbudget = 500\n")
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


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("timeout = 'soon'", "timeout in creditguard.toml"),
        ("timeout = true", "timeout in creditguard.toml"),
        ("keep = nan", "keep in creditguard.toml"),
        ("on_short = 'explode'", "on_short in creditguard.toml"),
        ("api_key = 5", "api_key in creditguard.toml"),
        ("ledger = 5", "ledger in creditguard.toml"),
        ("frobnicate = 1", "frobnicate in creditguard.toml is not a setting"),
        ("[jobs.x]\nbudget = -1", "[jobs.x] budget"),
        ("[jobs.x]\nbudgte = 1", "budgte in creditguard.toml is not a setting"),
        ("[jobs.x]\n", "jobs.x.budget in creditguard.toml"),
        ("jobs = 3", "jobs in creditguard.toml"),
        ("not toml at all", "creditguard.toml cannot be read"),
    ],
)
def test_mistakes_in_the_file_are_told_by_field(directory, text, named):
    (directory / "creditguard.toml").write_text(text + "\n")
    with pytest.raises(ConfigurationError) as caught:
        load(directory)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text(directory):
    (directory / "creditguard.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"creditguard\.toml cannot be read"):
        load(directory)


def test_a_key_file(directory, monkeypatch):
    (directory / "key").write_text("the-key\n")
    monkeypatch.setenv("APIMALL_API_KEY_FILE", str(directory / "key"))
    assert load(directory).api_key == "the-key"
    (directory / "key").write_text("\n")
    with pytest.raises(ConfigurationError, match=r"APIMALL_API_KEY_FILE: .* is empty"):
        load(directory)
    (directory / "key").write_bytes(b"\xff\xff")
    with pytest.raises(ConfigurationError, match="APIMALL_API_KEY_FILE"):
        load(directory)
    (directory / "key").write_text("two\nkeys\n")
    with pytest.raises(ConfigurationError, match="APIMALL_API_KEY_FILE") as caught:
        load(directory)
    assert "keys" not in str(caught.value).replace(str(directory), "")


def test_no_repr_shows_a_key_or_a_password(directory, monkeypatch):
    monkeypatch.setenv("APIMALL_API_KEY", "hush-hush")
    monkeypatch.setenv("CREDITGUARD_LEDGER", "postgresql://me:hush-hush@db/ledger")
    assert "hush" not in repr(load(directory))


def test_a_working_directory_that_is_gone(gateway, directory, monkeypatch):
    gone = directory / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with guard("nightly", budget=5):
        pass


VALUES = st.sampled_from(
    ["", "0", "5", "1.5", "-1", "abort", "warn", "json", "none", "https://a.example", "x y", "nan", "key"]
)


@hypothesis_settings(deadline=None)  # where a file is read, pydantic is loaded
@given(st.dictionaries(st.sampled_from(sorted(set(VARIABLES) - {"api_key_file"})), VALUES))
def test_the_quick_reader_and_pydantics_agree(said):
    """For any environment: with an empty settings file, which takes the way through pydantic, and without one."""
    from tempfile import TemporaryDirectory

    kept = {name: os.environ.pop(name) for name in VARIABLES.values() if name in os.environ}
    os.environ.update({VARIABLES[name]: value for name, value in said.items()})
    try:
        with TemporaryDirectory() as without, TemporaryDirectory() as with_file:
            Path(with_file, "creditguard.toml").touch()
            answers = []
            for place in (without, with_file):
                try:
                    answers.append(load(Path(place)))
                except ConfigurationError as error:
                    answers.append(str(error))
    finally:
        for name in said:
            os.environ.pop(VARIABLES[name], None)
        os.environ.update(kept)
    assert answers[0] == answers[1]


def test_settings_are_read_once_for_an_environment(gateway, monkeypatch):
    reads = []
    monkeypatch.setattr(settings_module, "load", lambda directory: reads.append(directory) or load(directory))
    for _ in range(3):
        with guard("nightly", budget=5, account="read-once"):
            pass
    assert len(reads) <= 1
