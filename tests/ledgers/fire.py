"""A ledger under fire: workers that share one prepaid pool, and are killed at random, while a poller counts.

    fire.py URL [--rule RULE] [--seconds S] [--workers N] [--kills N]

Each worker loops: mark, read the pool, reserve, spend all or part of it, shrink the hold by what was spent, perhaps ask for more,
settle. The pool is a file that really drops. A trickle fills it up, so that it is nearly empty all the time and every credit is
fought for. Prints one line of JSON.

A rule may be broken on purpose, to see that the stress would notice; such a run ends when it is noticed:

    late      compares with what is released at admission instead of at the mark
    outside   checks first and takes the hold in a second transaction
    early     shrinks a hold before the credits are spent
    lagging   shrinks although the balance shows a debit only after a while
    waiting   the same balance, with the account marked as lagging, and each run waiting until its debits show: this one is right,
              as long as those of a run that is killed show at once
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import signal
import sqlite3
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from ledger_world import AnyLedger, ledger_at

sys.path.append(str(Path(__file__).parents[1] / "support"))

from broken_ledgers import Late, Outside

from creditguard.process.identity import this_process
from creditguard.rules.values import Hold

ACCOUNT = "pool"
TTL = 3.0
LAG = 0.3
LEVEL = 300
BUDGETS = (20, 250)
RIGHT = ("right", "waiting")
RULES = (*RIGHT, "late", "outside", "early", "lagging")


class Pool:
    """Prepaid credits in a file. Spending is one write under a lock, so a killed spender has spent or has not.

    The first record is what is left, the least there ever was, and all that was spent; then one for each debit.
    """

    _RECORD = struct.Struct("qqd")

    def __init__(self, path: Path, level: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._shown = os.open(path.with_suffix(".shown"), os.O_RDWR | os.O_CREAT, 0o600)
        self.show()
        self._write(0, level, level, 0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def read(self) -> tuple[int, int, int]:
        """What is left, the least there ever was, and all that was spent."""
        with self._locked():
            return self._read()

    def lagging(self) -> int:
        """What is left, less the debits of the last while, which do not show yet."""
        with self._locked():
            level, end = self._read()[0], os.fstat(self._fd).st_size // self._RECORD.size
            for number in range(end - 1, 0, -1):
                amount, _, at = self._record(number)
                if at < time.monotonic() - LAG or at <= struct.unpack("d", os.pread(self._shown, 8, 0))[0]:
                    break
                level += amount
            return level

    def show(self) -> None:
        """Have all debits show that were made until now. Without the lock, which somebody who is stopped may have."""
        os.pwrite(self._shown, struct.pack("d", time.monotonic()), 0)

    def spend(self, amount: int) -> None:
        with self._locked():
            level, lowest, spent = self._read()
            end = os.fstat(self._fd).st_size // self._RECORD.size
            self._write(end, amount, 0, time.monotonic())
            self._write(0, level - amount, min(level - amount, lowest), spent + amount)

    def fill(self, amount: int) -> None:
        with self._locked():
            level, lowest, spent = self._read()
            self._write(0, level + amount, lowest, spent)

    def _read(self) -> tuple[int, int, int]:
        level, lowest, spent = self._record(0)
        return level, lowest, int(spent)

    def _record(self, number: int) -> tuple[int, int, float]:
        return self._RECORD.unpack(os.pread(self._fd, self._RECORD.size, number * self._RECORD.size))

    def _write(self, number: int, *figures: float) -> None:
        os.pwrite(self._fd, self._RECORD.pack(*figures), number * self._RECORD.size)


class Worker:
    """Jobs without end. A worker from `elsewhere` cannot be seen to be dead: its lease must end."""

    def __init__(self, url: str, rule: str, pool: Pool, *, elsewhere: bool) -> None:
        ledger = ledger_at(url, ttl=TTL)
        self.ledger: Any = {"late": Late, "outside": Outside}.get(rule, lambda same: same)(ledger)
        self.rule, self.pool = rule, pool
        self.read = pool.lagging if rule in {"waiting", "lagging"} else lambda: pool.read()[0]
        self.me = this_process()._replace(host="elsewhere") if elsewhere else this_process()
        self.dice = random.Random(self.me.id)
        self.held: set[str] = set()
        self.turn = threading.Lock()
        threading.Thread(target=self.renew, daemon=True).start()

    def ask(self, verb: str, *args: Any, **named: Any) -> Any:
        with self.turn:
            return getattr(self.ledger, verb)(*args, **named)

    def renew(self) -> None:
        while True:
            time.sleep(TTL / 6)
            self.ask("renew", self.me, list(self.held))

    def admitted(self, verb: str, *what: Any) -> bool:
        for attempt in range(2):
            mark, balance = self.ask("mark", ACCOUNT), self.read()
            time.sleep(self.dice.choice([0, 0, 0.002, 0.01]))  # others spend and settle meanwhile
            if self.ask(verb, *what, available=balance, mark=mark).admitted:
                return True
            if not attempt:
                self.ask("sweep", ACCOUNT)
        return False

    def work(self) -> None:
        number = 0
        while True:
            number += 1
            run, budget = f"{self.me.id}-{number}", self.dice.randint(*BUDGETS)
            if self.admitted("reserve", Hold(run, ACCOUNT, budget, "fire", {"n": number}, balance=1), self.me):
                self.held.add(run)
                self.job(run, budget)
                self.held.discard(run)
                self.ask("settle", run, ACCOUNT, {"job": "fire", "run_id": run})
            else:
                time.sleep(self.dice.uniform(0, 0.01))

    def job(self, run: str, budget: int) -> None:
        left = budget if self.dice.random() < 0.7 else self.dice.randint(0, budget)
        slow = self.dice.random() < 0.4
        while left:
            part = self.dice.randint(1, left) if slow else left
            left -= part
            budget -= part
            if self.rule == "early":
                self.ask("shrink", run, budget)
                time.sleep(self.dice.uniform(0, 0.005))
            self.pool.spend(part)
            if slow:
                time.sleep(self.dice.uniform(0, 0.005))
                self.ask("shrink", run, budget)
                if self.dice.random() < 0.2 and self.admitted("extend", run, part):
                    left += part
                    budget += part
        if self.rule == "waiting":
            time.sleep(LAG + 0.05)


class Poller:
    """Looks at the ledger from outside, and knows nothing of how it works but its tables."""

    def __init__(self, url: str) -> None:
        self.sql: Any
        if url.startswith("sqlite:///"):
            self.sql = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)
            schema = ""
        else:
            self.sql = psycopg.connect(url, autocommit=True, prepare_threshold=None)
            schema = "creditguard."
        self._question = f"""
            SELECT CAST(admitted AS bigint) - CAST(released AS bigint), started - ended, coalesce(total, 0), live
            FROM {schema}accounts, (SELECT sum(amount) AS total, count(*) AS live FROM {schema}holds) AS h"""

    def forget(self) -> None:
        """In a forked child. SQLite would take the parent's locks on the file for the child's own, and remove its log under others."""
        if isinstance(self.sql, sqlite3.Connection):
            self.sql.close()

    def balanced(self) -> bool:
        found = self.sql.execute(self._question).fetchone()
        return found is None or (found[0], found[1]) == (found[2], found[3])


def fork_worker(url: str, rule: str, pool: Pool, poller: Poller, *, elsewhere: bool) -> int:
    child = os.fork()
    if child == 0:
        try:
            poller.forget()
            Worker(url, rule, pool, elsewhere=elsewhere).work()
        except BaseException as error:
            print(f"worker: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    return child


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--rule", default="right", choices=RULES)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=50)
    arguments = parser.parse_args()
    url, rule = arguments.url, arguments.rule
    ledger = ledger_at(url, ttl=TTL)
    ledger.set_lagging(ACCOUNT, rule == "waiting")
    ledger.close()
    with tempfile.TemporaryDirectory() as directory:
        pool, poller = Pool(Path(directory) / "pool", LEVEL), Poller(url)
        workers: dict[int, bool] = {}  # and whether each is from elsewhere

        def start(*, elsewhere: bool) -> None:
            workers[fork_worker(url, rule, pool, poller, elsewhere=elsewhere)] = elsewhere

        try:
            for index in range(arguments.workers):
                start(elsewhere=index == 0)
            figures = burn(pool, poller, workers, start, arguments)
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            for worker in workers:
                os.waitpid(worker, 0)
        figures |= settle_dust(ledger, pool)
    print(json.dumps({"rule": rule, **figures}), flush=True)


def burn(
    pool: Pool, poller: Poller, workers: dict[int, bool], start: Callable[..., None], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Poll, fill up the pool, kill, and replace the killed, until the time is over."""
    polls = wrong = kills = died = 0
    began = last = time.monotonic()
    credit = 0.0
    while (now := time.monotonic()) < began + arguments.seconds:
        polls += 1
        wrong += not poller.balanced()
        level, lowest, _ = pool.read()
        if lowest < 0 and arguments.rule not in RIGHT:
            break
        if level < LEVEL:
            credit += (now - last) * 20_000
            pool.fill(int(credit))
            credit -= int(credit)
        last = now
        if kills < (now - began) / arguments.seconds * arguments.kills:
            victim = random.choice(list(workers))
            if arguments.rule == "waiting":  # it has no time to wait until its debits show, and frees its hold at once
                os.kill(victim, signal.SIGSTOP)
                os.waitpid(victim, os.WUNTRACED)
                pool.show()
            os.kill(victim, signal.SIGKILL)
            kills += 1
        ended, _ = os.waitpid(-1, os.WNOHANG)
        if ended:
            died += 1
            start(elsewhere=workers.pop(ended))
        time.sleep(0.003)
    poller.sql.close()
    return {"kills": kills, "died": died, "polls": polls, "wrong": wrong}


def settle_dust(ledger: AnyLedger, pool: Pool) -> dict[str, Any]:
    """Once all are dead, and the last lease of those that cannot be seen has ended, the whole pool can be had."""
    level, lowest, spent = pool.read()
    deadline = time.monotonic() + TTL + 3
    while True:
        ledger.sweep(ACCOUNT)
        mark = ledger.mark(ACCOUNT)
        hold = Hold("the whole pool", ACCOUNT, max(level, 0), "last")
        admitted = ledger.reserve(hold, this_process(), available=level, mark=mark).admitted
        if admitted or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    ledger.settle(hold.id, ACCOUNT, {"outcome": "succeeded"})
    mark = ledger.mark(ACCOUNT)
    outcomes = [report.get("outcome") for report in ledger.runs()]
    ledger.close()
    return {
        "runs": mark.started,
        "reports": len(outcomes),
        "abandoned": outcomes.count("abandoned"),
        "spent": spent,
        "lowest": lowest,
        "whole_pool_admitted": admitted,
        "left_over": mark.admitted - mark.released,
    }


if __name__ == "__main__":
    main()
