"""Which ledger a URL names, and what is said of one that names none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from creditguard.errors import ConfigurationError, LedgerUnavailable
from creditguard.ledgers import default_path, default_url, open_ledger
from creditguard.rules.values import Mark


def test_none_turns_the_ledger_off() -> None:
    assert [open_ledger(url).name for url in ("none", " none ", "NONE")] == ["none"] * 3


def test_opening_touches_nothing(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    open_ledger("postgresql://nobody@nowhere.invalid/none")
    assert list(tmp_path.iterdir()) == []
    assert ledger.mark("a") == Mark()
    assert (tmp_path / "ledger.db").exists()
    ledger.close()


def test_a_folder_is_made_for_the_default_ledger_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip in a path would make a ledger that nobody else looks into."""
    with pytest.raises(LedgerUnavailable, match=f"there is no folder {tmp_path}/nwe "):
        open_ledger(f"sqlite:///{tmp_path}/nwe/ledger.db").mark("a")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    open_ledger(default_url()).mark("a")
    assert default_path().exists()


def test_a_path_is_absolute_with_four_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    ledgers = [
        open_ledger(url) for url in ("sqlite:///here.db", "sqlite:///~/home.db", f"sqlite:///{tmp_path}/there.db")
    ]
    monkeypatch.chdir("/")  # a relative path is relative to where it was named
    for ledger in ledgers:
        ledger.mark("a")
        ledger.close()
    for name in ("here.db", "home/home.db", "there.db"):
        assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://ledger.db",
        "sqlite:///x.db?mode=ro",
        "sqlite:///x\0y",
        "none://",
        "/var/lib/ledger.db",
        "redis://user:hunter2@host",
        "user:hunter2@host/db",
        "postgresql:user:hunter2@host",
        "postgresql+psycopg2://u:hunter2@host/db",
        "hunter2 ://x",
    ],
)
def test_anything_else_is_an_error_that_names_the_setting(url: str) -> None:
    with pytest.raises(ConfigurationError, match="CREDITGUARD_LEDGER") as raised:
        open_ledger(url)
    assert "hunter2" not in str(raised.value)
    assert raised.value.setting == "CREDITGUARD_LEDGER"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@3@host/db",
        "postgresql://u:hunter2/3@host/db",
        "postgresql://u:hunter2?3@host/db",
        "postgresql://u:hunter2%zz@host/db",
        "postgresql://u:hunter2 3@host/db",
        "postgresql://u:hunter2:3@host/db",
        "postgresql://host/db?hunter2",
        "postgresql://host/db?nosuch=hunter2",
    ],
)
def test_a_password_that_breaks_the_url_is_not_repeated(url: str) -> None:
    """Whether it is refused at once or by the server: hosts and ports that libpq finds in such a URL are no hosts."""
    try:
        ledger = open_ledger(url)
    except ConfigurationError as error:
        message = f"{error} {error!r}"
    else:
        assert "hunter2" not in repr(ledger)
        with pytest.raises(LedgerUnavailable) as raised:
            ledger.mark("a")
        message = f"{raised.value} {raised.value!r}"
    assert "hunter2" not in message


def test_a_missing_extra_is_named() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from creditguard.errors import ConfigurationError
from creditguard.ledgers import open_ledger
try:
    open_ledger("postgresql://u:hunter2@host/db")
except ConfigurationError as error:
    print(error, error.__suppress_context__)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "creditguard[postgres]" in said
    assert "CREDITGUARD_LEDGER" in said
    assert "hunter2" not in said
    assert said.strip().endswith("True")


def test_the_default_is_where_platformdirs_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for state in (str(tmp_path), "", None):
        if state is None:
            monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_STATE_HOME", state)
        assert default_path() == platformdirs.user_state_path("creditguard", appauthor=False) / "ledger.db"
        assert default_url() == f"sqlite:///{default_path()}"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # to be ignored, says its specification
    assert default_path().is_absolute()


def test_without_a_home_the_first_verb_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")  # as for a user id that no passwd file knows

    monkeypatch.setattr(Path, "expanduser", homeless)
    ledger = open_ledger(default_url())
    with pytest.raises(LedgerUnavailable, match="home directory"):
        ledger.mark("a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "loaded"),
    [("none", set()), ("sqlite:////x/y.db", {"sqlite3"}), ("postgresql://host/db", {"psycopg"})],
)
def test_only_what_is_used_is_loaded(url: str, loaded: set[str]) -> None:
    code = f"""
import sys
from creditguard.ledgers import open_ledger
open_ledger({url!r})
print(*sorted({{"sqlite3", "psycopg", "platformdirs", "httpx"}} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(said.split()) == loaded
