"""What the tests of ledgers are made of: a PostgreSQL server, clocks, owners, and processes to be stopped and killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import creditguard
from creditguard.ledgers.postgres import PostgresLedger
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.process.identity import is_dead, this_process
from creditguard.rules.values import Owner

if TYPE_CHECKING:  # agents import this file, and have no path to the server's
    from postgres_server import PostgresServer

HERE = Path(__file__).parent
ROOT = Path(creditguard.__file__).parent.parent


class Server:
    """The tests' PostgreSQL, and a connection to it."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres = postgres
        self.url = postgres.url
        self.url_of = postgres.url_of
        self.start = postgres.start
        self._connection: psycopg.Connection[Any] | None = None

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = psycopg.connect(self.url, autocommit=True, prepare_threshold=None)
        cursor = self._connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def stop(self) -> None:
        self.close()
        self._postgres.stop()


class Clock:
    """A ledger's clock that is `skew` seconds ahead."""

    def __init__(self) -> None:
        self.skew = 0.0

    def forward(self, seconds: float) -> None:
        self.skew += seconds


class ServerClock(Clock):
    """The same of a server and its clients: the function that the server asks is replaced."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        ledger = PostgresLedger(server.url)
        ledger.init()
        ledger.close()

        self.jumped = 0.0

    def forward(self, seconds: float) -> None:
        super().forward(seconds)
        self.jump(0)

    def jump(self, seconds: float) -> None:
        """Somebody sets the server's clock. Nobody else's moves."""
        self.jumped += seconds
        self._server.execute(
            f"""CREATE OR REPLACE FUNCTION creditguard.clock() RETURNS timestamptz LANGUAGE sql VOLATILE
            AS 'SELECT pg_catalog.clock_timestamp() + interval ''{self.skew + self.jumped} seconds'' '"""
        )


AnyLedger = SqliteLedger | PostgresLedger


def ledger_at(url: str, **options: Any) -> AnyLedger:
    """As `open_ledger`, with options."""
    if url.startswith("sqlite:///"):
        return SqliteLedger(url.removeprefix("sqlite:///"), **options)
    return PostgresLedger(url, **options)


@dataclass
class Backend:
    """One kind of ledger: its URL, its clock, and any number of independent clients of the same ledger."""

    kind: str
    url: str
    clock: Clock
    stack: ExitStack
    dead: set[str] = field(default_factory=set)
    """Ids of the made-up owners that are taken for dead."""

    def client(self, **options: Any) -> AnyLedger:
        ledger = self.make(**options)
        self.stack.callback(ledger.close)
        return ledger

    def make(self, **options: Any) -> AnyLedger:
        skew, dead = (lambda: self.clock.skew), (lambda owner: owner.id in self.dead or is_dead(owner))
        options = {"skew": skew, "is_dead": dead, **options}
        return ledger_at(self.url, **options)


_owners = count(1)


def new_owner(**what: Any) -> Owner:
    """A made-up process on a host that cannot be seen from here."""
    number = next(_owners)
    here = this_process()
    fields = {"id": f"owner-{number}", "host": "elsewhere", "boot": here.boot, "pid": number, "started": "0", **what}
    return Owner(**fields)


class Agent:
    """Another process that does to a ledger what it is told; see agent.py."""

    def __init__(self, url: str, *options: str, within: Sequence[str] = (), **environment: str) -> None:
        self.process = subprocess.Popen(
            [*within, sys.executable, "-W", "error", str(HERE / "agent.py"), url, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        self.pid: int = self.ask("pid")

    def tell(self, verb: str, **arguments: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the agent died"
        answer = json.loads(line)
        assert not isinstance(answer, dict), answer["error"]
        return answer

    def ask(self, verb: str, **arguments: object) -> Any:
        self.tell(verb, **arguments)
        return self.answer()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self, *, reap: bool = True) -> None:
        self.process.kill()
        if reap:
            self.process.wait()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def read_totals(url: str) -> dict[str, tuple[int, int, int, int]]:
    """Per account, in one snapshot: admitted - released, the sum of the holds, started - ended, the number of holds."""
    asked = (
        "SELECT account, admitted, released, started, ended FROM {0}accounts",
        "SELECT account, amount FROM {0}holds",
    )
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)) as sql:
            sql.execute("BEGIN")
            accounts, holds = (sql.execute(statement.format("")).fetchall() for statement in asked)
    else:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as pg:
            pg.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with pg.transaction():
                accounts, holds = (pg.execute(one.format("creditguard.").encode()).fetchall() for one in asked)
    found = {}
    for account, admitted, released, started, ended in accounts:
        held = [amount for of, amount in holds if of == account]
        found[account] = (int(admitted) - int(released), sum(held), started - ended, len(held))
    return found


def in_balance(url: str) -> bool:
    """Whether each account's totals are the sum and the number of its holds."""
    return all(held == total and live == number for held, total, live, number in read_totals(url).values())


def in_threads(number: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(0)`, `work(1)`, ... answer, all started at once, each in a thread."""
    answers: list[Any] = [None] * number
    gate = threading.Barrier(number)

    def run(index: int) -> None:
        gate.wait()
        try:
            answers[index] = work(index)
        except Exception as error:
            answers[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
