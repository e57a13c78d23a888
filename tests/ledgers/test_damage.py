"""Ledgers that somebody or something has damaged: each verb answers with what it promises, or LedgerUnavailable, and nothing else.

test_damage.py COUNT [SEED]     as many damaged files as one likes, each told when it raises anything else
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from ledger_world import Backend, Server
from promises import OWNERS, READING, ask_all, fill

from creditguard.errors import LedgerUnavailable
from creditguard.ledgers.postgres import PostgresLedger
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.rules.values import Hold

# Files.


def damage(file: Path, dice: random.Random) -> str:
    """Damage a file in one of many ways; which."""
    content = bytearray(file.read_bytes())
    size, page = len(content), 1024
    kind = dice.choice(["bits", "bytes", "cut", "page", "zero", "swap", "header", "text"])
    at = dice.randrange(size)
    start = at // page * page
    if kind == "bits":
        for _ in range(dice.choice([1, 10, 100])):
            content[dice.randrange(size)] ^= 1 << dice.randrange(8)
    elif kind == "bytes":
        content[at : at + dice.choice([1, 4, 50])] = dice.randbytes(dice.choice([1, 4, 50]))
    elif kind == "cut":
        del content[at:]
    elif kind == "page":
        content[start : start + page] = dice.randbytes(page)
    elif kind == "zero":
        content[start : start + page] = bytes(page)
    elif kind == "swap":
        other = dice.randrange(size) // page * page
        content[start : start + page], content[other : other + page] = (
            content[other : other + page],
            content[start : start + page],
        )
    elif kind == "header":
        content[dice.randrange(min(size, 100))] = dice.randrange(256)
    else:  # one of the texts within, so that the file is sound and its rows are not
        for _ in range(20):
            letter = dice.randrange(size)
            if chr(content[letter]).isalnum() or chr(content[letter]) in '{}":,-.':
                content[letter] = dice.choice(b'\xff\x00{}":,-.e9Z\x80')
    file.write_bytes(content)
    return f"{kind} at {at}"


def damaged(template: Path, place: Path, dice: random.Random) -> str:
    """A copy of the ledger, its log included, with something damaged in it."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    victims = [place / "ledger.db", place / "ledger.db", place / "ledger.db-wal"]
    victim = dice.choice([each for each in victims if each.exists() and each.stat().st_size])
    return f"{victim.name}: {damage(victim, dice)}"


def make_template(folder: Path) -> Path:
    """A ledger as a process that was killed leaves it: part of it in the file, part in its log."""
    (folder / "used").mkdir()
    ledger = SqliteLedger(str(folder / "used/ledger.db"))
    fill(ledger, 150)
    with ledger._verb() as sql:
        sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    fill_more = [Hold(f"late-{number}", "a", 5, "job", {"x": "y"}, 3) for number in range(20)]
    for hold in fill_more:
        ledger.reserve(hold, OWNERS[0], available=None, mark=None)
    shutil.copytree(folder / "used", folder / "template")
    (folder / "template/ledger.db-shm").unlink()
    ledger.close()
    return folder / "template"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("damage"))


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_raises_nothing_else(template: Path, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(4):
        damaged(template, tmp_path / "copy", dice)
        ask_all(SqliteLedger(str(tmp_path / "copy/ledger.db"), wait=0.5))


# Rows.

ODD = [
    None,
    2.5,
    b"\xff\xfe",
    -(2**63),
    2**63 - 1,
    float("inf"),
    "x",
    "",
    "NaN",
    "-1",
    "1e999",
    "[1]",
    "null",
    '{"a":',
    '{"amount": "NaN"}',
    "\U0001f600",
    "9" * 5000,
    "[" * 5000,
    '{"amount": "1e999999", "unit": "credits", "read_at": "2026-01-01T00:00:00+00:00", "request_id": "", "source": "s", "mark": null}',
]


def columns(schema: str) -> Iterator[tuple[str, str]]:
    """The tables and columns of the present schema, without keys."""
    with closing(sqlite3.connect(schema)) as sql:
        for (table,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, name, *_ in sql.execute(f"PRAGMA table_info({table})").fetchall():
                yield table, name


def test_a_row_that_is_not_what_we_write_raises_nothing_else(template: Path, tmp_path: Path) -> None:
    dice = random.Random(1)
    refused = 0
    for table, column in columns(str(template / "ledger.db")):
        for odd in dice.sample(ODD, 4):
            place = tmp_path / "copy"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(template, place)
            with closing(sqlite3.connect(place / "ledger.db")) as sql, sql:
                try:
                    sql.execute(f"UPDATE {table} SET {column} = ? WHERE rowid % 2", (odd,))
                except sqlite3.OperationalError:  # no rowid
                    sql.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (odd,))
                except sqlite3.IntegrityError:
                    continue
            refused += ask_all(SqliteLedger(str(tmp_path / "copy/ledger.db"), wait=0.5)) > 0
    assert refused > 20


ROWS = [
    "UPDATE creditguard.accounts SET admitted = 'NaN'",
    "UPDATE creditguard.accounts SET released = 'NaN'",
    "UPDATE creditguard.accounts SET admitted = 'Infinity'",
    "UPDATE creditguard.accounts SET released = admitted + 1",
    "UPDATE creditguard.accounts SET released = -1",
    "UPDATE creditguard.accounts SET admitted = 0.5",
    "UPDATE creditguard.accounts SET started = -1",
    "UPDATE creditguard.accounts SET reading = '[]'",
    "UPDATE creditguard.accounts SET reading = 'x'",
    """UPDATE creditguard.accounts SET reading = '{"amount": "NaN", "unit": 1, "read_at": "2026", "mark": [1]}'""",
    "UPDATE creditguard.accounts SET published_at = 'infinity', claim_ends = 'infinity'",
    "UPDATE creditguard.accounts SET published_at = '294000-01-01'",
    "UPDATE creditguard.owners SET lease_ends = 'infinity'",
    "UPDATE creditguard.owners SET lease_ends = '-infinity'",
    "UPDATE creditguard.owners SET lease_ends = '290000-01-01', ttl = 'NaN'",
    "UPDATE creditguard.owners SET ttl = 1e300",
    "UPDATE creditguard.owners SET pid = -1, boot = '', started = 'x'",
    "UPDATE creditguard.owners SET lapses = 2147483647",
    "UPDATE creditguard.holds SET labels = 'x'",
    "UPDATE creditguard.holds SET labels = '[1]'",
    "UPDATE creditguard.holds SET labels = repeat('[', 100000)",
    "UPDATE creditguard.holds SET since = 'infinity'",
    "UPDATE creditguard.holds SET amount = -1",
    "UPDATE creditguard.holds SET amount = 9223372036854775807, budget = 9223372036854775807",
    "UPDATE creditguard.holds SET balance = 'NaN'",
    "UPDATE creditguard.history SET report = 'x'",
    "UPDATE creditguard.history SET report = '[]'",
    "UPDATE creditguard.history SET report = repeat('9', 10000)",
    "UPDATE creditguard.history SET finished_at = 'infinity'",
    "UPDATE creditguard.history SET finished_at = '-infinity'",
    "UPDATE creditguard.meta SET value = 'x'",
    "DELETE FROM creditguard.meta",
    "UPDATE creditguard.clocks SET ahead = 'NaN'",
    "UPDATE creditguard.clocks SET ahead = 1e308, since = 'infinity'",
    "ALTER TABLE creditguard.holds DROP COLUMN labels",
    "ALTER TABLE creditguard.accounts ALTER COLUMN started TYPE text",
    "DROP TABLE creditguard.history",
    "DROP FUNCTION creditguard.steady",
    "CREATE OR REPLACE FUNCTION creditguard.clock() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'",
]


@pytest.mark.parametrize("damage", ROWS)
def test_a_row_of_a_server_that_is_not_what_we_write_raises_nothing_else(empty_server: Server, damage: str) -> None:
    ledger = PostgresLedger(empty_server.url)
    fill(ledger, 12)
    ledger.close()
    empty_server.execute(damage.replace("%", "%%"))
    ask_all(PostgresLedger(empty_server.url))


@pytest.mark.parametrize("amount", ["1e999999", "1e20", "NaN", "-inf", True])
def test_a_published_balance_that_no_account_can_have_is_not_lent(backend: Backend, amount: object) -> None:
    ledger = backend.client()
    balance = READING.balance._replace(amount=amount)
    ledger.publish("a", READING._replace(balance=balance))
    with pytest.raises(LedgerUnavailable):
        ledger.recent("a", max_age=1e6, claim=5)


def test_totals_that_contradict_each_other_admit_nobody(backend: Backend) -> None:
    """A comparison with NaN is true on a server, and more released than admitted would be room for everybody."""
    schema = "" if backend.kind == "sqlite" else "creditguard."
    ledger = backend.client()
    for number, odd in enumerate(["'NaN'", "'-5'", "'x'"] if not schema else ["'NaN'", "-5"]):
        account = f"account-{number}"
        ledger.reserve(Hold(account, account, 100, "job"), OWNERS[0], available=None, mark=None)
        statement = f"UPDATE {schema}accounts SET admitted = {odd} WHERE account = '{account}'"
        if schema:
            with psycopg.connect(backend.url) as connection:
                connection.execute(statement.encode())
        else:
            with closing(sqlite3.connect(backend.url.removeprefix("sqlite:///"))) as sql, sql:
                sql.execute(statement)
        with pytest.raises(LedgerUnavailable):
            ledger.reserve(Hold("new", account, 10, "job"), OWNERS[0], available=100, mark=None)


def main(count: str, seed: str = "0") -> None:
    import tempfile
    import traceback

    with tempfile.TemporaryDirectory() as folder:
        template, dice, wrong, hit = make_template(Path(folder)), random.Random(int(seed)), 0, 0
        for number in range(int(count)):
            what = damaged(template, Path(folder) / "copy", dice)
            try:
                hit += ask_all(SqliteLedger(f"{folder}/copy/ledger.db", wait=0.5)) > 0
            except Exception:
                wrong += 1
                print(number, what, traceback.format_exc(limit=-3), flush=True)
    print(json.dumps({"files": int(count), "unavailable": hit, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
