"""What a ledger costs when much is held, and when several processes want it at once."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from measure import Arm, Noise, compare
from table import Line, Skipped, line
from world import BENCH, World

from creditguard.ledgers import open_ledger
from creditguard.process.identity import this_process
from creditguard.rules.ports import Ledger
from creditguard.rules.values import Hold

_ACCOUNT = "bench"
_AMOUNT = 1_000_000
_ids = itertools.count()


def holds(world: World) -> Iterator[Line | Skipped]:
    """An admission (mark and reserve) among many live holds, against one among ten."""
    many = world.pick(100_000, 2_000)
    for name, new_ledger in (("SQLite", world.sqlite), ("PostgreSQL", world.postgres)):
        what = f"admission, {many:,} live holds, {name}"
        try:
            few_url, full_url = new_ledger("holds_few"), new_ledger("holds_many")
        except ImportError as error:
            yield Skipped(what, str(error))
            continue
        few, full = open_ledger(few_url), open_ledger(full_url)
        _fill(few, 10)
        _fill(full, 10)
        full.close()
        with closing(_connection(full_url)) as connection:
            _multiply(connection, many)
        calls = 20
        found = compare(_admissions(few, calls), {"many": _admissions(full, calls)}, rounds=world.pick(80, 20))
        few.close()
        full.close()
        yield line(what, "with 10", found, "many", 1.3, per=calls)


def _new_hold() -> Hold:
    return Hold(f"run{next(_ids):08d}", _ACCOUNT, _AMOUNT, "bench")


def _fill(ledger: Ledger, count: int) -> None:
    """Take so many holds."""
    for _ in range(count):
        ledger.reserve(_new_hold(), this_process(), available=None, mark=None)


def _connection(url: str) -> Any:
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    import psycopg

    return psycopg.connect(url, autocommit=True, options="-c search_path=creditguard")


def _multiply(connection: Any, count: int) -> None:
    """Copy one of the holds until there are so many, totals included: a hundred thousand admissions would take minutes."""
    (held,) = connection.execute("SELECT count(*) FROM holds").fetchone()
    columns = [name for name, *_ in connection.execute("SELECT * FROM holds LIMIT 0").description if name != "run_id"]
    others = ", ".join(columns)
    connection.execute(f"""
        INSERT INTO holds (run_id, {others})
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count - held})
        SELECT run_id || '-' || n, {others} FROM (SELECT * FROM holds LIMIT 1) AS one, numbers""")
    connection.execute(f"UPDATE accounts SET admitted = '{count * _AMOUNT}', started = {count}")


def _admissions(ledger: Ledger, calls: int) -> Arm:
    """Admissions, which are given back when the clock has stopped."""

    def arm() -> float:
        new = [_new_hold() for _ in range(calls)]
        start = perf_counter()
        for hold in new:
            ledger.reserve(hold, this_process(), available=10**18, mark=ledger.mark(_ACCOUNT))
        seconds = perf_counter() - start
        for hold in new:
            ledger.release(hold.id)
        return seconds

    return arm


@dataclass(frozen=True)
class _Contest:
    """What processes achieved that admitted and released as fast as they could: admissions of each, and the longest wait."""

    admissions: list[int]
    longest: float
    seconds: float

    @property
    def unfairness(self) -> float:
        return max(self.admissions) / max(min(self.admissions), 1)

    @property
    def rate(self) -> float:
        return sum(self.admissions) / self.seconds


def contention(world: World) -> Iterator[Line]:
    """Four processes on one SQLite ledger. The floor is what the scheduler does to four that have nothing to do with each
    other: a ledger for each."""
    seconds = 0.4 if world.quick else 1.5
    number = itertools.count()

    def contest(path: Callable[[int], str], processes: int = 4) -> _Contest:
        return _contest([path(each) for each in range(processes)], seconds)

    def together(_: int) -> str:
        return world.sqlite("together")

    own: list[_Contest] = []
    own_again: list[_Contest] = []
    shared: list[_Contest] = []
    alone: list[_Contest] = []
    alone_again: list[_Contest] = []
    for _ in range(world.pick(4, 1)):
        first = next(number)
        own.append(contest(lambda each, first=first: world.sqlite(f"own{first}-{each}")))  # type: ignore[misc]
        alone.append(contest(together, 1))
        shared.append(contest(together))
        alone_again.append(contest(together, 1))
        own_again.append(contest(lambda each, first=first: world.sqlite(f"own{first}-{each}")))  # type: ignore[misc]
    unfairness = median(each.unfairness for each in shared)
    yield Line(
        "4 processes, SQLite: fastest / slowest",
        "1.00 (A/A: a ledger for each)",
        unfairness,
        Noise.of([1.0] * len(own) * 2, [each.unfairness for each in own + own_again]),
        "<= 2.00x",
        unfairness <= 2,
        "admissions of each, last round: " + ", ".join(map(str, shared[-1].admissions)),
    )
    longest, longest_own = max(each.longest for each in shared), max(each.longest for each in own + own_again)
    yield Line(
        "4 processes, SQLite: longest wait",
        "4 processes, a ledger for each",
        longest / longest_own,
        Noise.of([each.longest for each in own], [each.longest for each in own_again]),
        "<= 150 ms",
        longest <= 0.150,
        f"{longest * 1000:.0f} ms against {longest_own * 1000:.0f} ms, of {sum(sum(each.admissions) for each in shared)}",
    )
    one, four = median(each.rate for each in alone + alone_again), median(each.rate for each in shared)
    yield Line(
        "4 processes, SQLite: admissions/s",
        "1 process",
        four / one,
        Noise.of([each.rate for each in alone], [each.rate for each in alone_again]),
        detail=f"{four:.0f}/s against {one:.0f}/s",
    )


def _contest(urls: list[str], seconds: float) -> _Contest:
    contenders = [
        subprocess.Popen(
            [sys.executable, BENCH / "contender.py", url, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for url in urls
    ]
    for contender in contenders:
        assert contender.stdout is not None
        contender.stdout.readline()  # it is ready
    for contender in contenders:
        assert contender.stdin is not None
        contender.stdin.write("go\n")
        contender.stdin.flush()
    answers = [json.loads(contender.communicate()[0]) for contender in contenders]
    return _Contest([answer["admissions"] for answer in answers], max(answer["longest"] for answer in answers), seconds)
