"""Ledgers of the first version of the program: brought up to date, and shared with processes of the first version that still run.

`data/first_version.zip` is that version's own code, `data/first_version.db` a file that it made (see `data/make.py`).

What is promised: whatever either version admits counts for both; each can renew, settle, release and sweep as before. What the
first version does not know it does not do: it files nothing for a run that it sweeps, and remembers no release.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from ledger_world import HERE, Agent, Backend, Clock, Server, in_balance, ledger_at

from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.ledgers.sqlite_sql import MIGRATIONS
from creditguard.process.identity import this_process
from creditguard.rules.values import Grant, Hold, Mark

Start = Callable[..., Agent]
FIRST = {"PYTHONPATH": str(HERE / "data/first_version.zip")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the first version, as it was kept."""
    return Path(shutil.copy(HERE / "data/first_version.db", tmp_path / "ledger.db"))


def test_a_file_of_the_first_version_is_brought_up_to_date_with_all_that_it_holds(path: Path) -> None:
    clock = Clock()
    ledger = SqliteLedger(str(path), skew=lambda: clock.skew)
    assert ledger.mark("pool") == Mark(3_600_001_980, 3_280_001_968, 45, 41)
    assert ledger.mark("large") == Mark(11 * 10**18, 10**19, 11, 10)
    assert [live.hold.id for live in ledger.holds()] == [*(f"run-0{number}" for number in range(8)), "large-0"]
    first = ledger.holds("pool")[0]
    assert first.hold == Hold("run-00", "pool", 80_000_000, "job-0", {"team": "data", "café": 0})
    assert first.budget == 80_000_000
    assert len([*ledger.runs()]) == 82
    assert [report["run_id"] for report in ledger.history(job="job-1", limit=2)] == ["run-89", "run-85"]
    assert in_balance(f"sqlite:///{path}")

    ledger.shrink("run-00", 30_000_000)
    assert ledger.extend("run-00", 5, available=None, mark=None).admitted
    assert ledger.extend("run-01", 5, available=0, mark=None) == Grant(admitted=False, held_by_others=320_000_016)
    assert in_balance(f"sqlite:///{path}")
    assert list(ledger.sweep("pool")) == [], "nobody can see those owners, nor compare their clocks"
    clock.forward(61)
    freed = ledger.sweep("pool")
    assert [(live.hold.id, live.budget) for live in freed][:2] == [("run-00", 80_000_005), ("run-02", 80_000_002)]
    (report,) = (report for report in ledger.history(limit=4) if report["run_id"] == "run-00")
    assert (report["outcome"], report["consumed_at_least"], report["balance_before"]) == ("abandoned", 50, None)
    assert in_balance(f"sqlite:///{path}")
    ledger.close()


def auto_vacuum(path: Path) -> int:
    with closing(sqlite3.connect(path)) as sql:
        return int(sql.execute("PRAGMA auto_vacuum").fetchone()[0])


def test_it_gives_space_back_from_then_on(path: Path) -> None:
    ledger = SqliteLedger(str(path))
    ledger.mark("pool")
    ledger.close()
    assert auto_vacuum(path) == 2
    with closing(sqlite3.connect(path)) as sql:
        assert dict(sql.execute("SELECT * FROM meta").fetchall()) == {"schema_version": 1, "level": len(MIGRATIONS)}


def test_a_large_file_does_so_once_it_is_asked_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rewrite it takes a while, for which everybody waits."""
    monkeypatch.setattr("creditguard.ledgers.sqlite_file._SMALL", 1)
    ledger = SqliteLedger(str(path))
    ledger.mark("pool")
    assert auto_vacuum(path) == 0
    ledger.init()
    assert auto_vacuum(path) == 2
    assert ledger.mark("pool").started == 45
    ledger.close()


def test_a_file_shrinks_as_it_is_pruned(tmp_path: Path) -> None:
    clock = Clock()
    ledger = SqliteLedger(str(tmp_path / "ledger.db"), keep=3600, skew=lambda: clock.skew)
    for number in range(500):
        ledger.settle(f"old-{number}", "a", {"pad": "x" * 2000})
    ledger.close()
    full = (tmp_path / "ledger.db").stat().st_size
    clock.forward(3601)
    for number in range(500):
        ledger.settle(f"new-{number}", "a", {})
    assert len([*ledger.runs()]) == 500
    ledger.close()
    assert (tmp_path / "ledger.db").stat().st_size < full / 3


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a ledger that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: Server = request.getfixturevalue("empty_server")
    return server.url


def test_a_run_of_the_first_version_that_is_under_way_ends_as_it_would_have(url: str, agents: Start) -> None:
    old = agents(url, **FIRST)
    for run in ("renewed", "settled", "released"):
        assert old.ask("reserve", run=run, amount=30, available=120)
    ledger = ledger_at(url)
    assert ledger.mark("a") == Mark(90, 0, 3, 0)
    assert not ledger.reserve(Hold("new", "a", 40, "job"), this_process(), available=120, mark=None).admitted
    assert list(ledger.sweep("a")) == []
    assert old.ask("renew") == []
    old.ask("settle", run="settled")
    assert old.ask("release", run="released")
    assert ledger.reserve(Hold("new", "a", 40, "job"), this_process(), available=120, mark=None).admitted
    assert not old.ask("reserve", run="more", amount=60, available=120), "what a new one holds counts"
    assert old.ask("reserve", run="less", amount=50, available=120)
    assert old.ask("sweep") == 0
    ledger.shrink("new", 10)
    assert old.ask("reserve", run="room", amount=30, available=120), "and what it gives back"
    assert in_balance(url)
    old.kill()
    freed = ledger.sweep("a")
    assert sorted(live.hold.id for live in freed) == ["less", "renewed", "room"]
    assert sorted(str(report["outcome"]) for report in ledger.runs()) == ["abandoned"] * 3 + ["succeeded"]
    assert ledger.mark("a").admitted - ledger.mark("a").released == 10
    ledger.close()


def test_the_first_version_may_be_started_on_a_ledger_that_is_up_to_date(url: str, agents: Start) -> None:
    ledger, new = ledger_at(url), agents(url)
    assert ledger.reserve(Hold("mine", "a", 80, "job"), this_process(), available=120, mark=None).admitted
    assert new.ask("reserve", run="theirs", amount=10, available=120)
    old = agents(url, **FIRST)
    assert not old.ask("reserve", run="old", amount=80, available=120)
    assert old.ask("sweep") == 0
    new.kill()
    assert old.ask("sweep") == 1
    assert old.ask("reserve", run="old", amount=40, available=120)
    assert in_balance(url)
    ledger.release("mine")
    assert old.ask("renew") == []
    assert in_balance(url)
    ledger.close()


def test_a_migration_in_the_middle_of_a_crowd_of_both(url: str, agents: Start) -> None:
    old = [agents(url, **FIRST) for _ in range(3)]
    for number, agent in enumerate(old):
        assert agent.ask("reserve", run=f"held-{number}", amount=100)
        agent.tell("turnover", runs=100)
    new = [agents(url) for _ in range(3)]
    for agent in new:
        agent.tell("turnover", runs=100)
    assert [agent.answer() for agent in old + new] == [[]] * 6
    assert in_balance(url)
    ledger = ledger_at(url)
    assert ledger.mark("a") == Mark(300 + 6000, 6000, 603, 600)
    assert len([*ledger.runs()]) == 600
    assert list(ledger.sweep("a")) == []
    assert [agent.ask("renew") for agent in old] == [[]] * 3
    ledger.close()


def test_who_may_use_the_tables_may_use_the_new_ones(empty_server: Server, agents: Start) -> None:
    agents(empty_server.url, **FIRST).ask("reserve", run="old", amount=1)
    empty_server.execute("DROP ROLE IF EXISTS worker")
    empty_server.execute("CREATE ROLE worker LOGIN")
    try:
        empty_server.execute("GRANT USAGE ON SCHEMA creditguard TO worker")
        empty_server.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA creditguard TO worker")
        ledger = ledger_at(empty_server.url_of("worker"))
        with pytest.raises(Exception, match="is from an older creditguard.*creditguard ledger init"):
            ledger.mark("a")
        ledger_at(empty_server.url).init()  # type: ignore[union-attr]
        assert ledger.reserve(Hold("new", "a", 1, "job"), this_process(), available=2, mark=None).admitted
        assert ledger.release("new")
        assert list(ledger.sweep("a")) == []
        ledger.close()
    finally:
        empty_server.execute("DROP OWNED BY worker")
        empty_server.execute("DROP ROLE worker")


def test_a_servers_holds_of_the_first_version_are_freed_when_their_lease_has_ended(
    empty_server: Server, agents: Start
) -> None:
    agents(empty_server.url, **FIRST).ask("reserve", run="old", amount=1)
    with psycopg.connect(empty_server.url) as connection:
        connection.execute("UPDATE creditguard.owners SET host = 'elsewhere'")
    ledger = ledger_at(empty_server.url)
    assert list(ledger.sweep("a")) == []
    backend = Backend("postgres", empty_server.url, Clock(), None)  # type: ignore[arg-type]
    backend.clock.forward(timedelta(seconds=61).total_seconds())
    with psycopg.connect(empty_server.url) as connection:
        connection.execute("UPDATE creditguard.owners SET lease_ends = now() - interval '1 second'")
    assert [live.hold.id for live in ledger.sweep("a")] == ["old"]
    ledger.close()
