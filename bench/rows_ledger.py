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

from measure import Arm, Noise, compare, timed
from table import Line, Skipped, line
from world import BENCH, World, process, run, script

from creditguard.ledgers import open_ledger
from creditguard.process.identity import this_process
from creditguard.rules.ports import Ledger
from creditguard.rules.values import Hold

_ACCOUNT = "bench"
_AMOUNT = 1_000_000
_ids = itertools.count()
TWO_TRANSACTIONS = "two transactions, NORMAL"


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


def pairs(world: World) -> Iterator[Line | Skipped]:
    """A run's two transactions, and nothing else: what the ledger itself costs."""
    calls, floor = 50, two_transactions(world)
    ledger = open_ledger(world.sqlite("pair"))
    found = compare(timed(floor, calls), {"pair": _pairs(ledger, calls)}, rounds=world.pick(60, 5))
    ledger.close()
    yield line("reserve and settle, SQLite", TWO_TRANSACTIONS, found, "pair", per=calls)
    what = "reserve and settle, PostgreSQL"
    try:
        url = world.postgres("pair")
    except ImportError as error:
        yield Skipped(what, str(error))
        return
    ledger = open_ledger(url)
    ledger.mark(_ACCOUNT)
    with closing(_connection(url)) as connection:
        select = timed(lambda: connection.execute("SELECT 1").fetchall(), calls)
        found = compare(select, {"pair": _pairs(ledger, calls)}, rounds=world.pick(60, 5))
    ledger.close()
    yield line(what, "SELECT 1", found, "pair", per=calls)


def two_transactions(world: World) -> Callable[[], None]:
    """A row that comes and goes, in a transaction each: what a run cannot do without."""
    sql = sqlite3.connect(world.folder / f"bare-{next(_ids)}.db", isolation_level=None)
    sql.execute("PRAGMA journal_mode = WAL").fetchall()
    sql.execute("PRAGMA synchronous = NORMAL")
    sql.execute("CREATE TABLE holds (run_id TEXT PRIMARY KEY, amount INTEGER)")

    def work() -> None:
        run = f"run{next(_ids):08d}"
        for statement in ("INSERT INTO holds VALUES (?, 1)", "DELETE FROM holds WHERE run_id = ?"):
            sql.execute("BEGIN IMMEDIATE")
            sql.execute(statement, (run,))
            sql.execute("COMMIT")

    return work


def _pairs(ledger: Ledger, calls: int) -> Arm:
    report = {"job": "bench", "outcome": "succeeded", "credits_consumed": 1, "basis": "account_delta"}

    def pair() -> None:
        hold = _new_hold()
        ledger.reserve(hold, this_process(), available=10**18, mark=None)
        ledger.settle(hold.id, _ACCOUNT, report)

    return timed(pair, calls)


def growth(world: World) -> Iterator[Line]:
    """A SQLite ledger with much history, and with many holds, against one with little: what a run waits for, and what people ask."""
    many = world.pick(1_000_000, 20_000)
    few, full = open_ledger(world.sqlite("history_few")), open_ledger(world.sqlite("history_many"))
    for ledger in (few, full):
        _fill(ledger, 10)
        for _ in range(10):
            ledger.settle(_new_hold().id, _ACCOUNT, {"job": "bench", "pad": "x" * 700})
        ledger.close()
    with closing(_connection(world.sqlite("history_many"))) as connection:
        _multiply_history(connection, many)
    calls = 20
    found = compare(_admissions(few, calls), {"many": _admissions(full, calls)}, rounds=world.pick(80, 20))
    yield line(f"admission, {many:,} rows of history, SQLite", "with 10", found, "many", 1.3, per=calls)
    found = compare(_pairs(few, calls), {"many": _pairs(full, calls)}, rounds=world.pick(80, 20))
    yield line(f"reserve and settle, {many:,} rows", "with 10", found, "many", 1.3, per=calls)
    questions: dict[str, Callable[[], object]] = {
        "history": full.history,
        "history, no such job": lambda: full.history(job="never"),
        "history, job elsewhere": lambda: full.history(job="bench", account="never"),
    }
    for what, question in questions.items():
        yield _quick(f"{what}, {many:,} rows", "with 10", few.history, question)
    few.close()
    full.close()
    live = world.pick(100_000, 2_000)
    few, full = open_ledger(world.sqlite("list_few")), open_ledger(world.sqlite("list_many"))
    for ledger in (few, full):
        _fill(ledger, 10)
        ledger.close()
    with closing(_connection(world.sqlite("list_many"))) as connection:
        _multiply(connection, live)
    yield _quick(f"holds, {live:,} of them", "with 10", few.holds, full.holds)
    few.close()
    full.close()


def _quick(what: str, floor: str, few: Callable[[], object], many: Callable[[], object]) -> Line:
    """A line whose target is a time: nobody waits long for an answer."""
    found = compare(timed(few), {"many": timed(many)}, rounds=5)
    longest = max(found.candidates["many"])
    detail = found.milliseconds("many")
    return Line(what, floor, found.ratio("many"), found.noise, "<= 300 ms", longest <= 0.3, detail)


def _multiply_history(connection: Any, count: int) -> None:
    connection.execute(f"""
        INSERT INTO history (run_id, account, job, finished_at, report)
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
        SELECT run_id || '-' || n, account, job, finished_at - n, report FROM (SELECT * FROM history LIMIT 1), numbers""")


@dataclass(frozen=True)
class _Contest:
    """What processes achieved that admitted and settled as fast as they could: runs of each, and the longest wait."""

    runs: list[int]
    longest: float
    seconds: float

    @property
    def unfairness(self) -> float:
        return max(self.runs) / max(min(self.runs), 1)

    @property
    def rate(self) -> float:
        return sum(self.runs) / self.seconds


def contention(world: World) -> Iterator[Line]:
    """Few and many processes on one SQLite ledger. The floor of fairness is what the scheduler does to four that have nothing to
    do with each other: a ledger for each."""
    seconds = 0.4 if world.quick else 1.5
    rounds = world.pick(4, 1)
    number = itertools.count()

    def together(processes: int) -> _Contest:
        return _contest([world.sqlite("together")] * processes, seconds)

    def apart() -> _Contest:
        first = next(number)
        return _contest([world.sqlite(f"own{first}-{each}") for each in range(4)], seconds)

    crowds = (4, 16, 50)
    own: list[_Contest] = []
    own_again: list[_Contest] = []
    shared: dict[int, list[_Contest]] = {crowd: [] for crowd in crowds}
    again: dict[int, list[_Contest]] = {crowd: [] for crowd in crowds}
    for _ in range(rounds):
        own.append(apart())
        for found, order in ((shared, crowds), (again, crowds[::-1])):
            for crowd in order:
                found[crowd].append(together(crowd))
        own_again.append(apart())
    both = {crowd: shared[crowd] + again[crowd] for crowd in crowds}
    unfairness = median(each.unfairness for each in both[4])
    yield Line(
        "4 processes, SQLite: fastest / slowest",
        "1.00 (A/A: a ledger for each)",
        unfairness,
        Noise.of([1.0] * rounds * 2, [each.unfairness for each in own + own_again]),
        "<= 2.00x",
        unfairness <= 2,
        "runs of each, last round: " + ", ".join(map(str, both[4][-1].runs)),
    )
    four = median(each.rate for each in both[4])
    for crowd in crowds:
        rate = median(each.rate for each in both[crowd])
        yield Line(
            f"{crowd} processes, SQLite: runs/s",
            "4 processes",
            rate / four,
            Noise.of([each.rate for each in shared[crowd]], [each.rate for each in again[crowd]]),
            ">= 0.60x" if crowd == 50 else "",
            rate >= 0.6 * four if crowd == 50 else None,
            f"{rate:.0f}/s",
        )
        longest = [median(each.longest for each in found) for found in (both[crowd], own + own_again)]
        most = {4: 0.150, 50: 1.5}.get(crowd)
        yield Line(
            f"{crowd} processes, SQLite: longest wait",
            "4 processes, a ledger for each",
            longest[0] / longest[1],
            Noise.of([each.longest for each in own], [each.longest for each in own_again]),
            f"<= {most * 1000:.0f} ms" if most else "",
            longest[0] <= most if most else None,
            f"{longest[0] * 1000:.0f} ms against {longest[1] * 1000:.0f} ms (medians of {rounds * 2})",
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
    return _Contest([answer["runs"] for answer in answers], max(answer["longest"] for answer in answers), seconds)


def shell(world: World) -> Iterator[Line | Skipped]:
    """Many shell jobs, fifty at a time, against the bare commands: of the shortest of Python's programs."""
    jobs = world.pick(1000, 20)
    lean = world.lean()
    crowd = f"seq {jobs} | xargs -P 50 -I{{}}"
    guarded = f"{script('creditguard')} run -q --budget 1 --account crowd"
    bare = f"{sys.executable} -c pass"
    try:
        run(["sh", "-c", f"{guarded} -- true"], lean)
    except RuntimeError as error:
        yield Skipped(f"{jobs:,} shell jobs, xargs -P 50", str(error))
        return
    arms = {
        "none": process("sh", "-c", f"{crowd} {guarded} --ledger none -- {bare}", environment=lean),
        "sqlite": process("sh", "-c", f"{crowd} {guarded} -- {bare}", environment=lean),
    }
    floor = process("sh", "-c", f"{crowd} {bare}", environment=lean)
    found = compare(floor, arms, rounds=1, warm=False)
    yield line(f"{jobs:,} shell jobs, xargs -P 50, no ledger", "python -c pass", found, "none", per=jobs)
    yield line(f"{jobs:,} shell jobs, xargs -P 50, SQLite", "python -c pass", found, "sqlite", per=jobs)
