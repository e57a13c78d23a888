"""Which settings files are read, how they lie over one another, and what a file of somebody's checkout may not say."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal

import pytest

from creditguard import ConfigurationError, guard, settings

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


def in_pyproject(text):
    return "[project]\nname = 'x'\n[tool.creditguard]\n" + text.replace("[jobs", "[tool.creditguard.jobs")


@pytest.mark.parametrize("name", ["creditguard.toml", "pyproject.toml"])
def test_a_settings_file(places, name, monkeypatch):
    (places.work / name).write_text(in_pyproject(FILE) if name == "pyproject.toml" else FILE)
    found = settings.current()
    assert found.api_key.get_secret_value() == "from-the-file"
    assert (found.base_url, found.timeout, found.keep) == ("https://file.example", 3.0, Decimal("2.5"))
    assert found.jobs == {"nightly-enrich": 500, "with space": Decimal("0.5")}
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "7")
    monkeypatch.setenv("CREDITGUARD_KEEP", "")
    found = settings.current()
    assert (found.timeout, found.keep) == (7.0, Decimal("2.5"))


def test_creditguard_toml_beats_the_pyproject_beside_it(places):
    places.own.write_text("timeout = 1")
    (places.work / "pyproject.toml").write_text(in_pyproject("timeout = 2\nkeep = 2"))
    assert (settings.current().timeout, settings.current().keep) == (1.0, 0)


@pytest.mark.parametrize(
    "text", ["this is [ not toml, and not ours", "[tool.other]\nx = 1", "dependencies = ['creditguard']"]
)
def test_a_pyproject_of_something_else_is_not_ours_and_the_walk_goes_on(places, text):
    places.own.write_text("timeout = 3")
    package = places.work / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(text)
    os.chdir(package)
    assert settings.current().timeout == 3.0


def test_files_lie_over_one_another_field_by_field(places, monkeypatch):
    places.system.write_text(
        "timeout = 1\nkeep = 1\nsettle = 1\nmin_interval = 1\n[jobs.a]\nbudget = 1\n[jobs.b]\nbudget = 1\n"
    )
    places.user.write_text("timeout = 2\nkeep = 2\nsettle = 2\n[jobs.b]\nbudget = 2\n[jobs.c]\nbudget = 2")
    places.own.write_text("timeout = 3\nkeep = 3\n[jobs.c]\nbudget = 3\n")
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "4")
    found = settings.current()
    assert (found.timeout, found.keep, found.settle.seconds, found.min_interval) == (4, 3, 2, 1)
    assert found.jobs == {"a": 1, "b": 2, "c": 3}


def test_the_users_file_is_where_xdg_config_home_says(places, monkeypatch):
    places.user.write_text("timeout = 2")
    elsewhere = places.home / "elsewhere"
    (elsewhere / "creditguard").mkdir(parents=True)
    (elsewhere / "creditguard/config.toml").write_text("timeout = 3")
    assert settings.current().timeout == 2
    monkeypatch.setenv("XDG_CONFIG_HOME", str(elsewhere))
    assert settings.current().timeout == 3
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")  # to be ignored, says its specification
    assert settings.current().timeout == 2


def test_the_file_that_creditguard_config_names_replaces_the_one_found_by_the_working_directory(places, monkeypatch):
    places.own.write_text("timeout = 1\nkeep = 1")
    places.user.write_text("settle = 2")
    named = places.home / "named.toml"
    named.write_text("timeout = 5\nbase_url = 'https://named.example'\nledger = 'none'")
    for spelt in (str(named), "~/named.toml", "../named.toml"):
        monkeypatch.setenv("CREDITGUARD_CONFIG", spelt)
        found = settings.current()
        assert (found.timeout, found.keep, found.settle.seconds) == (5, 0, 2)
        assert (found.base_url, found.ledger.get_secret_value()) == ("https://named.example", "none")
    monkeypatch.setenv("CREDITGUARD_CONFIG", "")
    assert settings.current().timeout == 1


def test_creditguard_config_may_name_a_pyproject(places, monkeypatch):
    (places.home / "pyproject.toml").write_text(in_pyproject("timeout = 5"))
    monkeypatch.setenv("CREDITGUARD_CONFIG", "../pyproject.toml")
    assert settings.current().timeout == 5


@pytest.mark.parametrize("name", ["../nowhere.toml", "~nobody-of-that-name/x", ".."])
def test_creditguard_config_names_nothing_that_can_be_read(places, monkeypatch, name):
    monkeypatch.setenv("CREDITGUARD_CONFIG", name)
    with pytest.raises(ConfigurationError, match=r"^CREDITGUARD_CONFIG: .* cannot be read: ") as caught:
        settings.current()
    assert name.removeprefix("..") in str(caught.value)


def test_the_nearest_parent_with_a_file_is_used_and_no_other(places):
    deep = places.work / "a/b/c"
    deep.mkdir(parents=True)
    (places.home / "creditguard.toml").write_text("timeout = 1\nkeep = 1")
    places.own.write_text("timeout = 2")
    os.chdir(deep)
    assert (settings.current().timeout, settings.current().keep) == (2, 0)
    places.own.unlink()
    os.chdir(deep.parent)
    assert (settings.current().timeout, settings.current().keep) == (1, 1)


@pytest.mark.parametrize("top", [".git", ".hg"])
def test_the_walk_ends_at_the_top_of_a_repository(places, top):
    (places.home / "creditguard.toml").write_text("timeout = 1")
    inside = places.work / "inside"
    inside.mkdir()
    (places.work / top).mkdir()
    os.chdir(inside)
    assert settings.current().timeout == 10
    places.own.write_text("timeout = 2")
    os.chdir(places.work)
    os.chdir(inside)
    assert settings.explain().files[2] == (str(places.own), True)


def test_the_walk_ends_at_the_home_directory(places):
    (places.home.parent / "creditguard.toml").write_text("timeout = 1")
    assert settings.current().timeout == 10
    assert settings.explain().files[2:4] == (
        (f"{places.home}/creditguard.toml", False), (f"{places.home}/pyproject.toml", False)
    )  # fmt: skip


def test_the_walk_ends_before_a_folder_in_which_anybody_may_put_a_file(places, tmp_path):
    shared = tmp_path / "shared"
    (shared / "job").mkdir(parents=True)
    shared.chmod(0o1777)
    (shared / "creditguard.toml").write_text("on_short = 'warn'")
    os.chdir(shared / "job")
    assert settings.current().on_short == "abort"
    os.chdir(shared)
    assert settings.current().on_short == "warn"


def test_a_working_directory_that_is_gone(gateway, places):
    places.user.write_text("timeout = 2")
    gone = places.work / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert settings.current().timeout == 2
    with guard("nightly", budget=5):
        pass
    os.chdir(places.work)


# A key goes nowhere because of a file that the working directory happens to hold.

DESTINATION = {"base_url": "https://elsewhere.example", "ledger": "postgresql://elsewhere.example/ledger"}


@pytest.mark.parametrize("name", ["base_url", "ledger"])
@pytest.mark.parametrize("place", ["creditguard.toml", "pyproject.toml", "../creditguard.toml"])
@pytest.mark.parametrize("key", [None, "APIMALL_API_KEY", "APIMALL_API_KEY_FILE", "user", "own key file"])
def test_a_file_of_the_working_directory_does_not_say_where_another_key_goes(places, monkeypatch, name, place, key):
    text = f"{name} = '{DESTINATION[name]}'\n"
    (places.work / "key").write_text("sk-0123456789")
    if key == "user":
        places.user.write_text("api_key = 'sk-0123456789'")
    elif key == "own key file":  # which may name any file of the user's
        text += f"api_key_file = '{places.work}/key'\n"
    elif key:
        monkeypatch.setenv(key, str(places.work / "key"))
    (places.work / place).write_text(in_pyproject(text) if place == "pyproject.toml" else text)
    with pytest.raises(ConfigurationError) as caught:
        settings.current()
    message = str(caught.value)
    shown = place if "/" not in place else f"{places.home}/creditguard.toml"
    assert message.startswith(f"{name} in {shown} is refused: ")
    for way_out in (
        settings.VARIABLES[name],
        str(places.user),
        f"CREDITGUARD_CONFIG={places.work.joinpath(place).resolve()}",
    ):
        assert way_out in message
    assert "\n" not in message
    monkeypatch.setenv("CREDITGUARD_CONFIG", place)
    assert DESTINATION[name] in {
        settings.current().base_url,
        settings.current().ledger and settings.current().ledger.get_secret_value(),
    }


def test_such_a_file_may_say_where_its_own_key_goes_but_only_that(places, monkeypatch):
    places.own.write_text("api_key = 'its-own'\nbase_url = 'https://its.example'\nledger = 'none'\n")
    found = settings.current()
    assert (found.api_key.get_secret_value(), found.base_url) == ("its-own", "https://its.example")
    monkeypatch.setenv("APIMALL_API_KEY", "another")
    with pytest.raises(ConfigurationError, match=r"^base_url in creditguard\.toml is refused"):
        settings.current()
    monkeypatch.setenv("CREDITGUARD_BASE_URL", "https://ours.example")
    with pytest.raises(ConfigurationError, match=r"^ledger in creditguard\.toml is refused"):
        settings.current()
    monkeypatch.setenv("CREDITGUARD_LEDGER", "none")
    found = settings.current()
    assert (found.api_key.get_secret_value(), found.base_url) == ("another", "https://ours.example")


@pytest.mark.parametrize(
    ("ledger", "refused"),
    [
        ("postgresql://elsewhere.example/ledger", True),
        (" Postgres://me@elsewhere.example/ledger", True),
        ("postgresql://me:@elsewhere.example/ledger", True),
        ("postgresql://elsewhere.example/ledger?user=a:b@c", True),
        ("postgresql://me:its@elsewhere.example/ledger?password=", True),
        ("postgresql://me:its@elsewhere.example/ledger?pas%73word=", True),
        ("postgresql://me:its@elsewhere.example/ledger?sslmode=require", False),
        ("postgres://me:its@one.example,two.example", False),
        ("sqlite:///ledger.db", False),
    ],
)
def test_a_password_of_the_environment_goes_nowhere_by_such_a_file(places, monkeypatch, ledger, refused):
    """libpq sends PGPASSWORD to whatever server it is told to ask."""
    places.own.write_text(f"api_key = 'its-own'\nledger = '{ledger}'\n")
    if not refused:
        assert settings.current().ledger.get_secret_value().strip() == ledger
        return
    with pytest.raises(ConfigurationError, match=r"^ledger in creditguard\.toml is refused"):
        settings.current()
    monkeypatch.setenv("CREDITGUARD_LEDGER", "none")
    assert settings.current().ledger.get_secret_value() == "none"


def test_the_key_of_the_environment_is_sent_nowhere_by_a_checkout(gateway, places, monkeypatch, check):
    monkeypatch.delenv("CREDITGUARD_BASE_URL")
    (places.work / "pyproject.toml").write_text(in_pyproject(f"base_url = '{gateway.url}'\n"))
    code, lines = check()
    assert (code, len(lines), sum(gateway.requests.values())) == (78, 1, 0)
    assert "base_url in pyproject.toml" in lines[0]


@pytest.mark.parametrize("place", ["user", "system"])
def test_the_users_and_the_systems_file_may_say_where_keys_go(places, monkeypatch, place):
    getattr(places, place).write_text("base_url = 'https://ours.example'\nledger = 'none'\n")
    monkeypatch.setenv("APIMALL_API_KEY", "ours")
    assert (settings.current().base_url, settings.current().ledger.get_secret_value()) == (
        "https://ours.example",
        "none",
    )


def test_the_key_of_a_higher_place_beats_a_lower_one_in_either_form(places, monkeypatch):
    (places.user.parent / "key").write_text("from-the-users-key-file\n")
    places.user.write_text("api_key_file = 'key'")  # relative to the file, wherever the job runs
    assert settings.current().api_key.get_secret_value() == "from-the-users-key-file"
    places.system.write_text("api_key = 'lower'")
    assert settings.current().api_key.get_secret_value() == "from-the-users-key-file"
    places.own.write_text("api_key = 'higher'")
    assert settings.current().api_key.get_secret_value() == "higher"
    (places.home / "key").write_text("highest")
    monkeypatch.setenv("APIMALL_API_KEY_FILE", "~/key")
    assert settings.current().api_key.get_secret_value() == "highest"


def test_the_model_is_loaded_where_it_has_something_to_do_and_only_there(places):
    script = "import sys; from creditguard import settings; settings.current(); print('pydantic' in sys.modules)"
    plain = {"APIMALL_API_KEY": "key", "CREDITGUARD_LEDGER": "none", "CREDITGUARD_ACCOUNT": "pool"}

    def loaded(**environment):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | environment
        )
        return done.stdout.strip() or done.stderr

    assert loaded(**plain) == "False"
    assert loaded(**plain, CREDITGUARD_TIMEOUT="5") == "True"
    (places.work / "pyproject.toml").write_text("[project]\ndependencies = ['creditguard']")
    assert loaded(**plain) == "False"
    places.user.touch()
    assert loaded(**plain) == "True"
