"""The embedded ledger: one SQLite file on this host, shared by all of its processes.

**Atomic.** Each verb that writes is one `BEGIN IMMEDIATE` transaction, so a process killed at any instant leaves all of it or
nothing. Totals per account sit in one row and everything else is found by index: no verb that a run waits for scans the holds.

**Fair.** SQLite makes a writer that finds the file busy sleep for ever longer while others barge in; a second's wait was
measured. So writers first take an advisory lock on a file beside the ledger (`ledgers.filelock`). That lock is courtesy only:
where it is not to be had, or its holder hangs, `BEGIN IMMEDIATE` alone keeps the ledger right. All waits are bounded; then the
verb says that the ledger is busy.

**Time.** A lease is measured on the clock of the running machine (CLOCK_MONOTONIC), which does not step, cannot be frozen from
Python, and rests while the machine is suspended. Two processes can compare leases on it if both know that it is the kernel's,
less the shift of a time namespace: `process.identity.clock` says so, and each owner's row has the name of its clock.

- Clocks of one name: the lease is over when its time has come. If it was renewed in the future, under another boot id, then
  before the machine was started anew, and nobody lives to hold it. (Different boot ids alone say nothing: containers fake them.)
- No common clock (a faked one; a /proc that is hidden; a process of the first version): no time that the owner wrote is ever
  compared with ours. Who looks writes down how often the owner had renewed its lease, and when that was seen, on the looker's
  clock (`watches`). If it is still so a whole lease later, seen from a clock of that name, then the lease is over. So the hold
  of an owner that nobody can see is freed by the second look, a lease after the first.
- A process whose clock is faked frees nobody but the dead.

Published readings age on a clock that does run during suspension (CLOCK_BOOTTIME), since the account goes on without us; they
are lent among processes that know to be of one boot. The wall clock only dates what people read, and prunes history.

**Leases.** `owners.lapses` counts how often an owner's lease had ended before it was renewed, and each hold remembers the count
at its start. A hold that is behind the count has been through a lapse. So `renew` says the same however often it is asked,
and also when a reservation extended the lapsed lease before it.

**The queue.** Places are kept on the clock on which readings age, among processes that know to be of one boot. A process whose
clock is faked neither has a place nor heeds one.

**Late reservations.** A release leaves a tombstone for an hour, and a settled run its history: whoever reserves for such a run
(a thread that was given up while it waited) is not admitted.

Totals are text: 64 bits would overflow at the tenth budget of the largest size, and SQLite would go on in floating point.
"""

from __future__ import annotations

import _thread
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from time import clock_gettime
from typing import Any, TypeAlias

from creditguard.errors import LedgerUnavailable
from creditguard.ledgers import rows
from creditguard.ledgers import sqlite_sql as statements
from creditguard.ledgers.sqlite_file import LedgerFile, NotOursError, let_go_of_inherited
from creditguard.process.identity import ELAPSED, KERNEL, RUNNING, Clock, clock, is_dead, this_process
from creditguard.rules.values import Grant, Hold, LiveHold, Mark, Owner, Reading

_PRUNE_EVERY = 64
_PAGES_GIVEN_BACK = 400  # at each pruning; a page is 1 KiB
_TOMBSTONE_LASTS = 3600.0
_PAGE_OF_RUNS = 500
# A lease is not written again at each admission while this much of it is left.
_FRESH = 0.9
_LARGEST = 2**63 - 1

_Sql: TypeAlias = sqlite3.Connection


class SqliteLedger:
    """A ledger in the SQLite file at `path`, made (0600, in a 0700 directory) at the first verb.

    `ttl`: seconds that a lease lasts. `keep`: seconds that history is kept. `wait`: seconds to wait for other processes.
    For tests: `skew` is added to the ledger's clocks, `is_dead` judges owners.
    """

    name = "sqlite"

    def __init__(
        self,
        path: str,
        *,
        ttl: float = 60.0,
        keep: float = 90 * 86400.0,
        wait: float = 5.0,
        skew: Callable[[], float] = float,
        is_dead: Callable[[Owner], bool] = is_dead,
    ) -> None:
        self._path = Path(path)
        with suppress(RuntimeError):  # no home directory: the first verb will say so
            self._path = self._path.expanduser().absolute()
        self.ttl: float | None = ttl
        self._ttl = ttl
        self._keep = keep
        self._wait = wait
        self._skew = skew
        self._is_dead = is_dead
        self._file: LedgerFile | None = None
        self._mutexes: dict[int, _thread.LockType] = {}
        self._clock = Clock("")

    def __repr__(self) -> str:
        return f"SqliteLedger({str(self._path)!r})"

    # Admission.

    def mark(self, account: str) -> Mark:
        with self._verb() as sql:
            return _mark(sql, rows.text(account))

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        run_id, account = rows.text(hold.id), rows.text(hold.account)
        with self._verb(writes=True) as sql:
            now = self._running()
            asked = {"run_id": run_id, "account": account, "owner": owner.id}
            ((*columns, own, ended, lapses, lease_ends, queue),) = sql.execute(statements.ASK, asked).fetchall()
            totals = _totals(columns)
            held = _held(totals, mark)
            if own is not None:
                return Grant(admitted=True, held_by_others=held - own)
            if ended:
                return Grant(admitted=False, held_by_others=held)
            if available is not None:
                place = {**asked, **self._elapsed(), "available": min(available, _LARGEST)}
                kept = _kept(sql, place, available - held) if queue else 0
                if available - held - kept < hold.amount:
                    if hold.waits:
                        amount = hold.amount if hold.amount <= available else 0
                        sql.execute(statements.TAKE_PLACE, {**place, "amount": amount, "waits": hold.waits})
                    return Grant(admitted=False, held_by_others=held + kept)
            if lapses is None or not now + _FRESH * self._ttl < lease_ends <= now + self._ttl:
                ((lapses,),) = sql.execute(statements.TAKE_LEASE, self._lease(owner, now)).fetchall()
            job, labels = rows.text(hold.job), rows.as_json(hold.labels)
            sql.execute(
                "INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run_id, account, owner.id, hold.amount, job, labels, self._wall(), lapses),
            )
            if hold.balance is not None:
                sql.execute("INSERT OR REPLACE INTO budgets VALUES (?, ?, ?)", (run_id, hold.amount, str(hold.balance)))
            _admit(sql, account, totals, hold.amount, runs=1)
            return Grant(admitted=True, held_by_others=held)

    def extend(self, run_id: str, by: int, *, available: int | None, mark: Mark | None) -> Grant:
        run_id = rows.text(run_id)
        with self._verb(writes=True) as sql:
            for account, amount, _ in sql.execute(statements.HOLD, (run_id,)).fetchall():
                totals = _mark(sql, account)
                held = _held(totals, mark)
                if available is not None and available - held < by:
                    return Grant(admitted=False, held_by_others=held)
                sql.execute(statements.KEEP_BUDGET, (run_id, amount))
                sql.execute("UPDATE budgets SET budget = budget + ? WHERE run_id = ?", (by, run_id))
                sql.execute("UPDATE holds SET amount = ? WHERE run_id = ?", (amount + by, run_id))
                _admit(sql, account, totals, by, runs=0)
                return Grant(admitted=True, held_by_others=held)
            return Grant(admitted=False, held_by_others=0, missing=True)

    def shrink(self, run_id: str, to: int, *, budget: int | None = None) -> None:
        run_id, to = rows.text(run_id), max(to, 0)
        with self._verb(writes=True) as sql:
            for account, amount, admitted in sql.execute(statements.HOLD, (run_id,)).fetchall():
                totals = _mark(sql, account)
                if amount > to and not totals.lagging and budget in (None, admitted):
                    sql.execute(statements.KEEP_BUDGET, (run_id, amount))
                    sql.execute("UPDATE holds SET amount = ? WHERE run_id = ?", (to, run_id))
                    _count_released(sql, account, totals, amount - to, runs=0)

    def set_lagging(self, account: str, lagging: bool) -> None:
        with self._verb(writes=True) as sql:
            sql.execute(
                """INSERT INTO accounts (account, lagging) VALUES (?, ?)
                ON CONFLICT (account) DO UPDATE SET lagging = excluded.lagging""",
                (rows.text(account), lagging),
            )

    # Leases.

    def renew(self, owner: Owner, run_ids: Iterable[str]) -> frozenset[str]:
        asked = {run_id: rows.text(run_id) for run_id in run_ids}
        with self._verb(writes=True) as sql:
            self._clock = clock()
            renewed = sql.execute(statements.RENEW_LEASE, self._lease(owner, self._running())).fetchall()
            lapses = renewed[0][0] if renewed else None
            held = dict(sql.execute("SELECT run_id, lapses FROM holds WHERE owner = ?", (owner.id,)).fetchall())
            return frozenset(run_id for run_id, key in asked.items() if held.get(key) != lapses or key not in held)

    def sweep(self, account: str) -> Sequence[LiveHold]:
        account = rows.text(account)
        with self._verb() as sql:
            self._clock = clock()
            asked = {"account": account, **self._now()}
            found = sql.execute(statements.OWNERS_IN_ACCOUNT, asked).fetchall()
            # This process lives, even if it was stopped for longer than its lease and has not renewed it yet.
            judged = [(Owner(*row[:5]), row[5]) for row in found if row[0] != this_process().id]
            doubtful = [(owner, dead) for owner, runs in judged for dead in (self._is_dead(owner),) if dead or not runs]
        if not doubtful:
            return ()
        freed: list[LiveHold] = []
        with self._verb(writes=True) as sql:
            now = self._now()  # by now an owner whose lease was over may have renewed it
            for owner, dead in doubtful:
                asked = {"owner": owner.id, "account": account, **now}
                if dead or _is_over(sql, asked):
                    freed.extend(self._live(row) for row in sql.execute(statements.HOLDS_OF_OWNER, asked).fetchall())
                    sql.execute(statements.FREE_OWNER, asked)
            if freed:
                amount = sum(live.hold.amount for live in freed)
                _count_released(sql, account, _mark(sql, account), amount, runs=len(freed))
                for live in freed:
                    report = rows.as_json(rows.abandoned(live))
                    sql.execute(
                        statements.FILE, (live.hold.id, account, live.hold.job, self._wall(), report, True)
                    ).fetchall()
                self._forget_owners(sql, now)
        return sorted(freed, key=lambda live: live.since)

    def _forget_owners(self, sql: _Sql, now: Mapping[str, Any]) -> None:
        sql.execute(statements.FORGET_OWNERS, now)
        sql.execute(statements.FORGET_WATCHES)
        sql.execute(statements.FORGET_OTHER_PLACES, now)

    # The end of a run.

    def settle(self, run_id: str, account: str, report: Mapping[str, object]) -> None:
        run_id, account, job = rows.text(run_id), rows.text(account), rows.text(str(report.get("job") or ""))
        with self._verb(writes=True) as sql:
            _release(sql, run_id)
            wall = self._wall()
            filed = (run_id, account, job, wall, rows.as_json(report), False)
            new = sql.execute(statements.FILE, filed).fetchall()
            if new and new[0][0] % _PRUNE_EVERY == 0:
                sql.execute(statements.PRUNE, (wall - self._keep,))
                ((free,),) = sql.execute("PRAGMA freelist_count").fetchall()
                # One by one: Python does not step through a statement without columns.
                for _ in range(min(free, _PAGES_GIVEN_BACK)):
                    sql.execute("PRAGMA incremental_vacuum(1)")
                self._forget_owners(sql, self._now())

    def release(self, run_id: str) -> bool:
        run_id = rows.text(run_id)
        with self._verb(writes=True) as sql:
            wall = self._wall()
            sql.execute(statements.UNEARTH, (wall - _TOMBSTONE_LASTS,))
            sql.execute(statements.BURY, (run_id, wall))
            return _release(sql, run_id)

    # What people see.

    def holds(self, account: str | None = None, *, limit: int = 1000) -> Sequence[LiveHold]:
        asked = {"account": None if account is None else rows.text(account), "limit": max(limit, 0)}
        with self._verb() as sql:
            return [self._live(row) for row in sql.execute(statements.HOLDS, asked).fetchall()]

    def _live(self, row: tuple[Any, ...]) -> LiveHold:
        """A row of HOLDS. A lease that cannot be compared with our clock is shown as if it had just been renewed."""
        *columns, since, lease_ends, renewed, name = row
        now = self._running()
        left = lease_ends - (now if name == self._clock.name and renewed <= now else renewed)
        return rows.live_hold(columns, since, self._wall() + left)

    def history(
        self, *, account: str | None = None, job: str | None = None, since: datetime | None = None, limit: int = 20
    ) -> Sequence[Mapping[str, object]]:
        asked = _filter(account, job, since)
        statement = statements.history(job=job is not None, account=account is not None, newest_first=True)
        with self._verb() as sql:
            found = sql.execute(statement, {**asked, "limit": max(limit, 0)}).fetchall()
            return [rows.report_from_json(report, finished_at) for report, finished_at, _ in found]

    def runs(
        self, *, since: datetime | None = None, job: str | None = None, account: str | None = None
    ) -> Iterator[Mapping[str, object]]:
        asked = {**_filter(account, job, since), "seq": -1, "limit": _PAGE_OF_RUNS}
        statement = statements.history(job=job is not None, account=account is not None, newest_first=False)
        while True:
            with self._verb() as sql:
                found = sql.execute(statement, asked).fetchall()
                reports = [rows.report_from_json(report, finished_at) for report, finished_at, _ in found]
            yield from reports
            if len(found) < _PAGE_OF_RUNS:
                return
            asked |= {"since": found[-1][1], "seq": found[-1][2]}

    # Readings for others.

    def recent(self, account: str, *, max_age: float, claim: float) -> Reading | bool:
        asked = {"account": rows.text(account), "max_age": max_age, "claim": claim}
        with self._verb() as sql:
            answer = _published(sql, {**asked, **self._elapsed()})
        if answer is not True:
            return answer
        with self._verb(writes=True) as sql:
            now = self._elapsed()
            answer = _published(sql, {**asked, **now})
            if answer is True:
                sql.execute(statements.CLAIM, {**asked, **now})
            return answer

    def publish(self, account: str, reading: Reading) -> None:
        row = {"account": rows.text(account), "reading": rows.reading_to_json(reading)}
        with self._verb(writes=True) as sql:
            sql.execute(statements.PUBLISH, {**row, **self._elapsed()})

    def version(self) -> int:
        """The version of the schema: migrations, counted from the first."""
        with self._verb() as sql:
            return int(dict(sql.execute("SELECT key, value FROM meta").fetchall())["level"])

    def init(self) -> None:
        """Make the file, or bring it up to date, and rewrite it so that it gives back the space of what is pruned."""
        with self._verb() as sql:
            if sql.execute("PRAGMA auto_vacuum").fetchall() != [(2,)] and self._file:
                self._file.compact()

    def close(self) -> None:
        mutex = self._mutex()
        if mutex.acquire(timeout=self._wait):  # else it is in use, by a verb that hangs
            try:
                self._let_go()
            finally:
                mutex.release()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None and file.pid == os.getpid():
            file.close()

    # The three clocks. Whoever writes must ask inside the transaction: a time from before the wait for it is out of date.

    def _running(self) -> float:
        return clock_gettime(RUNNING) - self._clock.running + self._skew()

    def _now(self) -> dict[str, Any]:
        return {"now": self._running(), "clock": self._clock.name, "boot": this_process().boot}

    def _elapsed(self) -> dict[str, Any]:
        boot = this_process().boot if self._clock.name == KERNEL else ""
        return {"now": clock_gettime(ELAPSED) - self._clock.elapsed + self._skew(), "boot": boot}

    def _wall(self) -> float:
        return clock_gettime(time.CLOCK_REALTIME) + self._skew()

    def _lease(self, owner: Owner, now: float) -> dict[str, Any]:
        return {
            "owner": owner.id,
            "host": rows.text(owner.host),
            "boot": owner.boot,
            "pid": owner.pid,
            "started": owner.started,
            "now": now,
            "ttl": self._ttl,
            "clock": self._clock.name,
        }

    # The file, and what goes wrong with it.

    @contextmanager
    def _verb(self, *, writes: bool = False) -> Iterator[_Sql]:
        """Around each verb: open the file if need be, take the lock and a transaction if it writes, and turn whatever goes wrong
        into LedgerUnavailable, for what a damaged file makes of its rows can raise anything."""
        mutex = self._mutex()
        if not mutex.acquire(timeout=self._wait):
            message = f"{self._path} is busy: another thread has kept it for {self._wait:g} s"
            raise LedgerUnavailable(message, self.name)
        try:
            file = self._opened()
            if writes:
                file.lock.take(self._wait)
                file.sql.execute("BEGIN IMMEDIATE")
            yield file.sql
            if writes:
                file.sql.execute("COMMIT")
                file.lock.release()
            file.busy = False
        except BaseException as error:
            # What was done is undone by closing the file, which gives up the lock, too.
            unavailable = self._unavailable(error)
            if isinstance(error, Exception):
                raise unavailable from None
            raise
        finally:
            mutex.release()

    def _mutex(self) -> _thread.LockType:
        """Held during each verb. The engine asks one at a time; but whoever handed this object to a guard may ask it as well, and
        SQLite's connections crash when two threads use one at once. A forked child has one of its own."""
        pid = os.getpid()
        return self._mutexes.get(pid) or self._mutexes.setdefault(pid, _thread.allocate_lock())

    def _opened(self) -> LedgerFile:
        file = self._file
        if file is not None and file.pid != os.getpid():
            let_go_of_inherited()  # a fork that Python was not told of
            file = None
        elif file is not None and not file.is_there():
            file.close()  # deleted or replaced under us: others would not see what we write
            file = None
        if file is None:
            file = self._file = LedgerFile(self._path, self._wait)
            self._clock = clock()
        file.busy = True
        return file

    def _unavailable(self, error: BaseException) -> LedgerUnavailable:
        """What went wrong, in one line; the next verb starts afresh."""
        self._let_go()
        if isinstance(error, TimeoutError) or str(error) == "database is locked":
            message = f"{self._path} is busy: another process has kept it locked for {self._wait:g} s"
        elif isinstance(error, NotOursError):
            message = f"{self._path} {error}"
        elif isinstance(error, OSError):
            message = f"{error.filename or self._path} cannot be used: {error.strerror or error}"
        elif isinstance(error, sqlite3.Error):
            message = f"{self._path} cannot be used: {error}"
        else:  # no row of ours
            message = f"{self._path} cannot be used: it holds what no creditguard wrote ({type(error).__name__})"
        return LedgerUnavailable(" ".join(message.split()), self.name)


def _mark(sql: _Sql, account: str) -> Mark:
    for columns in sql.execute(statements.MARK, (account,)).fetchall():
        return rows.mark(*columns)
    return Mark()


def _totals(columns: list[Any]) -> Mark:
    return Mark() if columns[0] is None else rows.mark(*columns)


def _held(totals: Mark, mark: Mark | None) -> int:
    """What is held, by the rule. A mark from a ledger file that has been replaced since may be ahead of this one's totals: never
    count less than admitted - released."""
    return totals.admitted - (min(totals.released, mark.released) if mark else totals.released)


def _kept(sql: _Sql, asked: Mapping[str, Any], free: int) -> int:
    """How much of what is free is kept for a run that has waited longer."""
    sql.execute(statements.FORGET_LAPSED_PLACES, asked)
    for (amount,) in sql.execute(statements.AHEAD, asked).fetchall():
        return min(int(amount), max(free, 0))
    return 0


def _admit(sql: _Sql, account: str, totals: Mark, amount: int, *, runs: int) -> None:
    sql.execute(
        """INSERT INTO accounts (account, admitted, started) VALUES (?, ?, ?)
        ON CONFLICT (account) DO UPDATE SET admitted = excluded.admitted, started = started + excluded.started""",
        (account, str(totals.admitted + amount), runs),
    )


def _release(sql: _Sql, run_id: str) -> bool:
    found = sql.execute("DELETE FROM holds WHERE run_id = ? RETURNING account, amount", (run_id,)).fetchall()
    for account, amount in found:
        _count_released(sql, account, _mark(sql, account), amount, runs=1)
    return bool(found)


def _count_released(sql: _Sql, account: str, totals: Mark, amount: int, *, runs: int) -> None:
    released = str(totals.released + amount)
    sql.execute("UPDATE accounts SET released = ?, ended = ended + ? WHERE account = ?", (released, runs, account))


def _is_over(sql: _Sql, asked: Mapping[str, Any]) -> bool:
    """Whether a lease has ended: by a clock that its owner shares with us, else by watching it."""
    for over, runs in sql.execute(statements.LEASE, asked).fetchall():
        if over or runs or not asked["clock"]:
            return bool(over)
        return sql.execute(statements.WATCH, asked).fetchall() == [(1,)]
    return False


def _published(sql: _Sql, asked: Mapping[str, Any]) -> Reading | bool:
    for reading, claimed in sql.execute(statements.READING, asked).fetchall():
        if reading is not None:
            return rows.reading_from_json(reading)
        return not claimed
    return True


def _filter(account: str | None, job: str | None, since: datetime | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"since": since.timestamp() if since else float("-inf")}
    if account is not None:
        asked["account"] = rows.text(account)
    if job is not None:
        asked["job"] = rows.text(job)
    return asked
