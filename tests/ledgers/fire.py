"""A ledger under fire: workers that share one prepaid pool, and are killed at random, while a poller counts.

    fire.py URL [--rule right|late|outside] [--seconds S] [--workers N] [--kills N]

Each worker loops: mark, read the pool, reserve, spend all or part of it, settle. The pool is a file that really drops. A trickle
fills it up, so that it is nearly empty all the time and every credit is fought for. Prints one line of JSON.

The rule may be broken on purpose, to see that the stress would notice: `late` compares with what is released at admission
instead of at the mark; `outside` checks first and takes the hold in a second transaction. Such a run ends when it is noticed.
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from creditguard.ledgers.postgres import PostgresLedger
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.process.identity import this_process
from creditguard.rules.values import Grant, Hold, Mark, Owner

ACCOUNT = "pool"
TTL = 3.0
LEVEL = 300
BUDGETS = (20, 250)


class Pool:
    """Prepaid credits in a file. Spending is one write under a lock, so a killed spender has spent or has not."""

    def __init__(self, path: Path, level: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._write(level, level, 0)

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

    def change(self, amount: int) -> None:
        with self._locked():
            level, lowest, spent = self._read()
            level += amount
            self._write(level, min(level, lowest), spent - min(amount, 0))

    def _read(self) -> tuple[int, int, int]:
        level, lowest, spent = struct.unpack("qqq", os.pread(self._fd, 24, 0))
        return level, lowest, spent

    def _write(self, *figures: int) -> None:
        os.pwrite(self._fd, struct.pack("qqq", *figures), 0)


class LateMixin:
    """R is read at the admission."""

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        return super().reserve(hold, owner, available=available, mark=None)  # type: ignore[misc]


class OutsideMixin:
    """The check is one transaction, the hold another."""

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        if available is not None and mark is not None:
            held = self.mark(hold.account).admitted - mark.released  # type: ignore[attr-defined]
            if available - held < hold.amount:
                return Grant(admitted=False, held_by_others=held)
            time.sleep(0.001)
        return super().reserve(hold, owner, available=None, mark=mark)  # type: ignore[misc]


def open_ledger(url: str, rule: str) -> Any:
    sqlite = url.startswith("sqlite:///")
    kind: type = SqliteLedger if sqlite else PostgresLedger
    mixin = {"right": (), "late": (LateMixin,), "outside": (OutsideMixin,)}[rule]
    return type(kind.__name__, (*mixin, kind), {})(url.removeprefix("sqlite:///"), ttl=TTL)


def work(url: str, rule: str, pool: Pool, *, elsewhere: bool) -> None:
    """Jobs without end. A worker from `elsewhere` cannot be seen to be dead: its lease must end."""
    ledger = open_ledger(url, rule)
    me = this_process()
    if elsewhere:
        me = replace(me, host="elsewhere")
    dice = random.Random(me.id)
    held: set[str] = set()

    def renew() -> None:
        while True:
            time.sleep(TTL / 6)
            ledger.renew(me, list(held))

    threading.Thread(target=renew, daemon=True).start()
    number = 0
    while True:
        number += 1
        run = f"{me.id}-{number}"
        budget = dice.randint(*BUDGETS)
        hold = Hold(run, ACCOUNT, budget, "fire", {"n": number})
        granted = False
        for attempt in range(2):
            mark = ledger.mark(ACCOUNT)
            balance = pool.read()[0]
            time.sleep(dice.choice([0, 0, 0.002, 0.01]))  # others spend and settle meanwhile
            granted = ledger.reserve(hold, me, available=balance, mark=mark).admitted
            if granted or attempt:
                break
            ledger.sweep(ACCOUNT)
        if not granted:
            time.sleep(dice.uniform(0, 0.01))
            continue
        held.add(run)
        left = budget if dice.random() < 0.7 else dice.randint(0, budget)
        slow = dice.random() < 0.3
        while left:
            part = dice.randint(1, left) if slow else left
            pool.change(-part)
            left -= part
            if slow:
                time.sleep(dice.uniform(0, 0.005))
        held.discard(run)
        ledger.settle(run, ACCOUNT, {"job": "fire", "run_id": run})


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

    def balanced(self) -> bool:
        found = self.sql.execute(self._question).fetchone()
        return found is None or (found[0], found[1]) == (found[2], found[3])


def fork_worker(url: str, rule: str, pool: Pool, *, elsewhere: bool) -> int:
    child = os.fork()
    if child == 0:
        try:
            work(url, rule, pool, elsewhere=elsewhere)
        except BaseException as error:
            print(f"worker: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    return child


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--rule", default="right", choices=["right", "late", "outside"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=50)
    arguments = parser.parse_args()
    url, rule = arguments.url, arguments.rule
    open_ledger(url, rule).mark(ACCOUNT)  # makes the tables
    with tempfile.TemporaryDirectory() as directory:
        pool = Pool(Path(directory) / "pool", LEVEL)
        workers: dict[int, bool] = {}  # and whether each is from elsewhere

        def start(*, elsewhere: bool) -> None:
            workers[fork_worker(url, rule, pool, elsewhere=elsewhere)] = elsewhere

        try:
            for index in range(arguments.workers):
                start(elsewhere=index == 0)
            figures = burn(pool, Poller(url), workers, start, arguments)
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            for worker in workers:
                os.waitpid(worker, 0)
        figures |= settle_dust(open_ledger(url, "right"), pool)
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
        if lowest < 0 and arguments.rule != "right":
            break
        if level < LEVEL:
            credit += (now - last) * 20_000
            pool.change(int(credit))
            credit -= int(credit)
        last = now
        if kills < (now - began) / arguments.seconds * arguments.kills:
            os.kill(random.choice(list(workers)), signal.SIGKILL)
            kills += 1
        ended, _ = os.waitpid(-1, os.WNOHANG)
        if ended:
            died += 1
            start(elsewhere=workers.pop(ended))
        time.sleep(0.003)
    poller.sql.close()
    return {"kills": kills, "died": died, "polls": polls, "wrong": wrong}


def settle_dust(ledger: Any, pool: Pool) -> dict[str, Any]:
    """Once all are dead, and the last lease of those that cannot be seen has ended, the whole pool can be had."""
    level, lowest, spent = pool.read()
    hold = Hold("the whole pool", ACCOUNT, level, "last")
    deadline = time.monotonic() + TTL + 3
    while True:
        ledger.sweep(ACCOUNT)
        mark = ledger.mark(ACCOUNT)
        admitted = ledger.reserve(hold, this_process(), available=level, mark=mark).admitted
        if admitted or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    ledger.release(hold.id)
    mark = ledger.mark(ACCOUNT)
    ledger.close()
    return {
        "runs": mark.started,
        "spent": spent,
        "lowest": lowest,
        "whole_pool_admitted": admitted,
        "left_over": mark.admitted - mark.released,
    }


if __name__ == "__main__":
    main()
