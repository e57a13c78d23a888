"""The embedded ledger: one SQLite file on this host, shared by all of its processes.

**Atomic.** Each verb that writes is one `BEGIN IMMEDIATE` transaction, so a process killed at any instant leaves all of it or
nothing. Totals per account sit in one row and everything else is found by index: no verb that a run waits for scans the holds.

**Fair.** SQLite makes a writer that finds the file busy sleep for ever longer while others barge in; a second's wait was
measured. So writers first take an advisory lock on a file beside the ledger, trying again at short and even intervals. That
lock is courtesy only: where it is not to be had, or its holder hangs, `BEGIN IMMEDIATE` alone keeps the ledger right. All waits
are bounded; then the verb says that the ledger is busy.

**Time.** A lease is measured on the clock that all processes of one boot share, which neither steps, nor can be frozen from
Python, nor runs while the machine is suspended (CLOCK_MONOTONIC), and each owner's row says of which boot. A lease from another
boot is over: nobody lives to hold it. Published readings age on a clock that does run during suspension (CLOCK_BOOTTIME),
since the account goes on without us. The wall clock only dates what people read, and prunes history.

**Leases.** `owners.lapses` counts how often an owner's lease had ended before it was renewed, and each hold remembers the count
at its start. A hold that is behind the count has been through a lapse. So `renew` says the same however often it is asked,
and also when a reservation on another thread extended the lapsed lease before it.

Totals are text: 64 bits would overflow at the tenth budget of the largest size, and SQLite would go on in floating point.
"""

# ruff: noqa: S608 - statements are put together from constants, and no value ever goes into their text

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import clock_gettime
from typing import Any, TypeAlias

from creditguard.errors import LedgerUnavailable
from creditguard.ledgers import rows
from creditguard.ledgers.filelock import FileLock
from creditguard.ledgers.turns import Turn, Turns
from creditguard.process.identity import is_dead, this_process
from creditguard.rules.values import Grant, Hold, LiveHold, Mark, Owner, Reading

# On Linux CLOCK_MONOTONIC rests while the machine is suspended and CLOCK_BOOTTIME does not; on macOS the names are others.
_RUNNING = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_PRUNE_EVERY = 64
_PRUNE_AT_MOST = 500

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('schema_version', 0)",
        """CREATE TABLE accounts (
            account TEXT PRIMARY KEY,
            admitted TEXT NOT NULL DEFAULT '0',      -- micro-credits; these four only ever grow
            released TEXT NOT NULL DEFAULT '0',
            started INTEGER NOT NULL DEFAULT 0,      -- runs
            ended INTEGER NOT NULL DEFAULT 0,
            reading TEXT,                            -- the latest balance that was published, as JSON
            published_at REAL,                       -- on the elapsed clock
            claim_ends REAL,                         -- until then somebody is reading the balance for all
            boot TEXT                                -- to which these two times belong
        ) WITHOUT ROWID""",
        """CREATE TABLE owners (
            id TEXT PRIMARY KEY,
            host TEXT NOT NULL,
            boot TEXT NOT NULL,
            pid INTEGER NOT NULL,
            started TEXT NOT NULL,
            renewed REAL NOT NULL,                   -- on the running clock of that boot
            lease_ends REAL NOT NULL,
            lapses INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID""",
        """CREATE TABLE holds (
            run_id TEXT NOT NULL UNIQUE,
            account TEXT NOT NULL,
            owner TEXT NOT NULL,
            amount INTEGER NOT NULL,                 -- micro-credits
            job TEXT NOT NULL,
            labels TEXT NOT NULL,
            since REAL NOT NULL,                     -- Unix time
            lapses INTEGER NOT NULL
        )""",
        "CREATE INDEX holds_of_owner ON holds (owner, account)",
        """CREATE TABLE history (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            account TEXT NOT NULL,
            job TEXT NOT NULL,
            finished_at REAL NOT NULL,               -- Unix time
            report TEXT NOT NULL
        )""",
        "CREATE INDEX history_by_age ON history (finished_at)",
    ),
)
"""How to come from each version of the schema to the next. Only ever append."""

_MARK = "SELECT admitted, released, started, ended FROM accounts WHERE account = ?"

_READING = """
    SELECT CASE WHEN boot = :boot AND published_at > :now - :max_age THEN reading END,
           boot = :boot AND claim_ends > :now
    FROM accounts WHERE account = :account"""

_CLAIM = """
    INSERT INTO accounts (account, claim_ends, boot) VALUES (:account, :now + :claim, :boot)
    ON CONFLICT (account) DO UPDATE SET
        claim_ends = excluded.claim_ends, boot = excluded.boot,
        published_at = CASE WHEN boot = excluded.boot THEN published_at END"""

_PUBLISH = """
    INSERT INTO accounts (account, reading, published_at, boot) VALUES (:account, :reading, :now, :boot)
    ON CONFLICT (account) DO UPDATE SET
        reading = excluded.reading, published_at = excluded.published_at, boot = excluded.boot, claim_ends = NULL"""

_OVER = "(boot <> :boot OR renewed > :now OR lease_ends <= :now)"

_TAKE_LEASE = f"""
    INSERT INTO owners (id, host, boot, pid, started, renewed, lease_ends)
    VALUES (:owner, :host, :boot, :pid, :started, :now, :now + :ttl)
    ON CONFLICT (id) DO UPDATE SET
        lapses = lapses + {_OVER}, boot = excluded.boot, renewed = excluded.renewed, lease_ends = excluded.lease_ends
    RETURNING lapses"""

_RENEW_LEASE = f"""
    UPDATE owners SET lapses = lapses + {_OVER}, boot = :boot, renewed = :now, lease_ends = :now + :ttl
    WHERE id = :owner RETURNING lapses"""

_OWNERS_IN_ACCOUNT = f"""
    SELECT id, host, boot, pid, started, {_OVER} FROM owners
    WHERE EXISTS (SELECT 1 FROM holds WHERE owner = owners.id AND account = :account)"""

_FREE_OWNER = f"""
    DELETE FROM holds WHERE owner = :owner AND account = :account
        AND (:dead OR EXISTS (SELECT 1 FROM owners WHERE id = :owner AND {_OVER}))
    RETURNING amount"""

_FORGET_OWNERS = f"""
    DELETE FROM owners WHERE {_OVER} AND NOT EXISTS (SELECT 1 FROM holds WHERE owner = owners.id)"""

_HOLDS = """
    SELECT run_id, account, amount, job, labels, id, host, boot, pid, started, since, lease_ends
    FROM holds JOIN owners ON owners.id = owner
    WHERE :account IS NULL OR account = :account ORDER BY since, holds.rowid"""

_HISTORY = """
    SELECT report, finished_at FROM history
    WHERE (:account IS NULL OR account = :account) AND (:job IS NULL OR job = :job)
    ORDER BY finished_at DESC, seq DESC LIMIT :limit"""

_PRUNE = f"""
    DELETE FROM history WHERE seq IN (
        SELECT seq FROM history WHERE finished_at < ? ORDER BY finished_at LIMIT {_PRUNE_AT_MOST})"""

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
        self._turns: Turns[_File] = Turns(self.name, inheritable=False)

    def __repr__(self) -> str:
        return f"SqliteLedger({str(self._path)!r})"

    def mark(self, account: str) -> Mark:
        with self._reading() as sql:
            return _mark(sql, rows.text(account))

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        run_id, account = rows.text(hold.id), rows.text(hold.account)
        with self._writing() as sql:
            totals = _mark(sql, account)
            # A mark from a ledger file that has been replaced since may be ahead of this one's totals: never count less than A - R.
            held = totals.admitted - min(totals.released, mark.released if mark else totals.released)
            for (own,) in sql.execute("SELECT amount FROM holds WHERE run_id = ?", (run_id,)).fetchall():
                return Grant(admitted=True, held_by_others=held - own)
            if available is not None and available - held < hold.amount:
                return Grant(admitted=False, held_by_others=held)
            if sql.execute("SELECT 1 FROM history WHERE run_id = ?", (run_id,)).fetchall():
                return Grant(admitted=False, held_by_others=held)  # a late duplicate of a run that is over
            ((lapses,),) = sql.execute(_TAKE_LEASE, self._lease(owner)).fetchall()
            sql.execute(
                "INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run_id,
                    account,
                    owner.id,
                    hold.amount,
                    rows.text(hold.job),
                    rows.labels_to_json(hold.labels),
                    self._wall(),
                    lapses,
                ),
            )
            sql.execute(
                """INSERT INTO accounts (account, admitted, started) VALUES (?, ?, 1)
                ON CONFLICT (account) DO UPDATE SET admitted = excluded.admitted, started = started + 1""",
                (account, str(totals.admitted + hold.amount)),
            )
            return Grant(admitted=True, held_by_others=held)

    def renew(self, owner: Owner, run_ids: Iterable[str]) -> frozenset[str]:
        asked = {run_id: rows.text(run_id) for run_id in run_ids}
        with self._writing() as sql:
            renewed = sql.execute(_RENEW_LEASE, self._lease(owner)).fetchall()
            lapses = renewed[0][0] if renewed else None
            held = dict(sql.execute("SELECT run_id, lapses FROM holds WHERE owner = ?", (owner.id,)).fetchall())
        return frozenset(run_id for run_id, key in asked.items() if held.get(key) != lapses or key not in held)

    def settle(self, run_id: str, account: str, report: Mapping[str, object]) -> None:
        if self._turns.interrupts(lambda: self.settle(run_id, account, report)):
            return
        finished_at = self._wall()
        filed = (rows.text(run_id), rows.text(account), rows.text(str(report.get("job") or "")), finished_at)
        with self._writing() as sql:
            _release(sql, filed[0])
            new = sql.execute(
                """INSERT INTO history (run_id, account, job, finished_at, report) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (run_id) DO NOTHING RETURNING seq""",
                (*filed, rows.report_to_json(report)),
            ).fetchall()
            if new and new[0][0] % _PRUNE_EVERY == 0:
                sql.execute(_PRUNE, (finished_at - self._keep,))
                sql.execute(_FORGET_OWNERS, self._now())

    def release(self, run_id: str) -> bool:
        if self._turns.interrupts(lambda: self.release(run_id)):
            return False
        with self._writing() as sql:
            return _release(sql, rows.text(run_id))

    def sweep(self, account: str) -> int:
        account = rows.text(account)
        with self._reading() as sql:
            found = sql.execute(_OWNERS_IN_ACCOUNT, {"account": account, **self._now()}).fetchall()
        judged = [(row[0], self._is_dead(Owner(*row[:5])), row[5]) for row in found]
        doomed = [(owner, dead) for owner, dead, over in judged if dead or over]
        if not doomed:
            return 0
        freed: list[int] = []
        with self._writing() as sql:
            now = self._now()  # by now an owner whose lease was over may have renewed it
            for owner, dead in doomed:
                found = sql.execute(_FREE_OWNER, {"owner": owner, "account": account, "dead": dead, **now}).fetchall()
                freed.extend(amount for (amount,) in found)
            _count_released(sql, account, sum(freed), len(freed))
            sql.execute(_FORGET_OWNERS, now)
        return len(freed)

    def holds(self, account: str | None = None) -> Sequence[LiveHold]:
        with self._reading() as sql:
            found = sql.execute(_HOLDS, {"account": None if account is None else rows.text(account)}).fetchall()
        wall, now = self._wall(), self._now()
        return [
            rows.live_hold(
                row[:5],
                row[5:10],
                since=row[10],
                lease_ends=wall + row[11] - now["now"] if row[7] == now["boot"] else row[10],
            )
            for row in found
        ]

    def history(
        self, *, account: str | None = None, job: str | None = None, limit: int = 20
    ) -> Sequence[Mapping[str, object]]:
        asked = {
            "account": None if account is None else rows.text(account),
            "job": None if job is None else rows.text(job),
            "limit": max(limit, 0),
        }
        with self._reading() as sql:
            return [rows.report_from_json(*row) for row in sql.execute(_HISTORY, asked).fetchall()]

    def recent(self, account: str, *, max_age: float, claim: float) -> Reading | bool:
        asked = {"account": rows.text(account), "max_age": max_age, "claim": claim}
        with self._reading() as sql:
            answer = _published(sql, {**asked, **self._elapsed()})
        if answer is not True:
            return answer
        with self._writing() as sql:
            now = self._elapsed()
            answer = _published(sql, {**asked, **now})
            if answer is True:
                sql.execute(_CLAIM, {**asked, **now})
            return answer

    def publish(self, account: str, reading: Reading) -> None:
        row = {"account": rows.text(account), "reading": rows.reading_to_json(reading)}
        with self._writing() as sql:
            sql.execute(_PUBLISH, {**row, **self._elapsed()})

    def close(self) -> None:
        self._turns.close()

    # The three clocks. Whoever writes must ask inside the transaction: a time from before the wait for it is out of date.

    def _now(self) -> dict[str, Any]:
        return {"now": clock_gettime(_RUNNING) + self._skew(), "boot": this_process().boot}

    def _elapsed(self) -> dict[str, Any]:
        return {"now": clock_gettime(_ELAPSED) + self._skew(), "boot": this_process().boot}

    def _wall(self) -> float:
        return clock_gettime(time.CLOCK_REALTIME) + self._skew()

    def _lease(self, owner: Owner) -> dict[str, Any]:
        return {
            "owner": owner.id,
            "host": rows.text(owner.host),
            "boot": owner.boot,
            "pid": owner.pid,
            "started": owner.started,
            "now": clock_gettime(_RUNNING) + self._skew(),
            "ttl": self._ttl,
        }

    # Turns, connections and transactions.

    @contextmanager
    def _reading(self) -> Iterator[_Sql]:
        with self._turns.take() as turn, self._explaining(turn):
            yield self._file(turn).sql

    @contextmanager
    def _writing(self) -> Iterator[_Sql]:
        with self._turns.take() as turn, self._explaining(turn):
            file = self._file(turn)
            with file.lock.held(self._wait), file.transaction():
                yield file.sql

    def _file(self, turn: Turn[_File]) -> _File:
        file = turn.connection
        if file is not None and not file.is_there():
            turn.drop()  # deleted or replaced under us: others would not see what we write
            file = None
        if file is None:
            file = turn.connection = _File(self._path, self._wait)
        return file

    @contextmanager
    def _explaining(self, turn: Turn[_File]) -> Iterator[None]:
        """Turn what SQLite and the system say into one line, and start afresh with the next verb."""
        try:
            yield
        except (TimeoutError, sqlite3.Error, _NotOurs, OSError) as error:
            turn.drop()
            failure = LedgerUnavailable(self._explain(error), self.name)
            raise turn.failed(failure) if _is_busy(error) else failure from None

    def _explain(self, error: Exception) -> str:
        if _is_busy(error):
            return f"{self._path} is busy: another process has kept it locked for {self._wait:g} s"
        if isinstance(error, _NotOurs):
            return f"{self._path} {error}"
        if isinstance(error, OSError):
            return f"{error.filename or self._path} cannot be used: {error.strerror or error}"
        return f"{self._path} cannot be used: {error}"


def _is_busy(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or str(error) == "database is locked"


class _NotOurs(Exception):
    """The file is a database, but not one that this version can use."""


class _File:
    """The open file: the connection, the lock beside it, and which file it is."""

    def __init__(self, path: Path, wait: float) -> None:
        if not path.is_absolute():
            raise _NotOurs("cannot be used: there is no home directory; name a file in CREDITGUARD_LEDGER")
        _create(path)
        self._path = str(path)
        self._id = self._identity()
        # Never without a timeout: even opening a file fails while another process closes it.
        self.sql = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
        self.lock = FileLock()
        try:
            # NORMAL survives the death of any process; after a power cut nobody lives to hold anything.
            self.sql.execute("PRAGMA synchronous = NORMAL")
            # A checkpoint syncs the disk, so one for 4 MB (page_size below) and not for every hundred runs.
            self.sql.execute("PRAGMA wal_autocheckpoint = 4000")
            version = self._version()
            self.lock.open(path.with_name(f"{path.name}-lock"), like=path)
            if version != len(MIGRATIONS):
                with self.lock.held(wait):
                    self._migrate()
        except BaseException:
            self.close()
            raise

    def is_there(self) -> bool:
        """Whether others who open the path open this file."""
        try:
            return self._identity() == self._id
        except FileNotFoundError:
            return False

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self._path)  # noqa: PTH116 - asked by each verb, and pathlib takes three times as long
        return status.st_dev, status.st_ino

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            self.sql.execute("BEGIN IMMEDIATE")
            yield
            self.sql.execute("COMMIT")
        except BaseException:
            if self.sql.in_transaction:
                with suppress(sqlite3.Error):
                    self.sql.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self.sql.close()
        self.lock.close()

    def _version(self) -> int:
        """The version of the schema; 0 for a new file."""
        tables = [
            name for (name,) in self.sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        ]
        if not tables:
            return 0
        if "meta" not in tables or "holds" not in tables:
            raise _NotOurs("is a SQLite database of something else")
        found = self.sql.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall()
        version = int(found[0][0]) if found else 0
        if version > len(MIGRATIONS):
            raise _NotOurs(f"was written by a newer creditguard (schema {version}): upgrade creditguard here")
        return version

    def _migrate(self) -> None:
        # Of a new file. A verb changes a few small rows, and whole pages are written.
        self.sql.execute("PRAGMA page_size = 1024")
        self.sql.execute("PRAGMA journal_mode = WAL").fetchall()
        with self.transaction():
            for migration in MIGRATIONS[self._version() :]:
                for statement in migration:
                    self.sql.execute(statement)
            self.sql.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (len(MIGRATIONS),))


def _create(path: Path) -> None:
    """Make the file, and the directories that it needs, for this user alone, whatever the umask. Leaves alone what exists."""
    if path.exists():
        return
    _create_directory(path.parent)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return  # another process was quicker
    os.fchmod(fd, 0o600)
    os.close(fd)


def _create_directory(path: Path) -> None:
    if path.exists():
        return
    _create_directory(path.parent)
    with suppress(FileExistsError):  # another process was quicker
        path.mkdir(mode=0o700)
        path.chmod(0o700)


def _mark(sql: _Sql, account: str) -> Mark:
    for admitted, released, started, ended in sql.execute(_MARK, (account,)).fetchall():
        return Mark(int(admitted), int(released), started, ended)
    return Mark()


def _release(sql: _Sql, run_id: str) -> bool:
    found = sql.execute("DELETE FROM holds WHERE run_id = ? RETURNING account, amount", (run_id,)).fetchall()
    for account, amount in found:
        _count_released(sql, account, amount, 1)
    return bool(found)


def _count_released(sql: _Sql, account: str, amount: int, runs: int) -> None:
    released = _mark(sql, account).released + amount
    sql.execute("UPDATE accounts SET released = ?, ended = ended + ? WHERE account = ?", (str(released), runs, account))


def _published(sql: _Sql, asked: Mapping[str, Any]) -> Reading | bool:
    for reading, claimed in sql.execute(_READING, asked).fetchall():
        if reading is not None:
            return rows.reading_from_json(reading)
        return not claimed
    return True
