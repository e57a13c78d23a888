"""The ledger of a fleet: PostgreSQL, in a schema of its own, shared by every host that is given the same URL.

**One round trip, one transaction.** A verb is a function in the schema (`ledgers.postgres_sql`), called by one message over
the simple protocol: the texts are parsed and planned once per connection of the server, and not per call. The function locks
the account's row before it touches the account's holds, so whatever changes them or the totals happens one at a time; its
later statements, at READ COMMITTED, see all that was committed before the lock was had. (In a single statement they would not:
a statement that waits for a row looks at everything but this row as it was before the wait.) Locks are taken in one order,
run, account, clock, owner, so no two verbs wait for each other. Two verbs need more than one trip: `sweep`, since whether an
owner is dead is seen from its own host only (and what it frees is reported in the same transaction, which the server ends
should this process stop in between), and the mark at a run's exit is not taken together with `settle`: the report that is
settled says how many runs overlapped, so it cannot be written before the mark is known, and the mark must come after the last
balance.

**Poolers.** Nothing outlives a transaction: no prepared statements, no session settings, no session locks, no LISTEN. So the
ledger works through a pooler that lends a connection per transaction. Timeouts are local to the transaction.

**Time.** The server's clock decides when a lease ends, as it is when a lock has been had (`clock_timestamp()`, not `now()`). It
is one clock for all hosts, but may be set. So each machine's own clock, which cannot (CLOCK_BOOTTIME), keeps an eye on it: the
schema remembers by how much the server's is ahead of it. As long as that has not changed since a lease was renewed, the server's
clock says whether the lease is over. If it has, by ten seconds or more, the time that was written means nothing, and the lease
counts as renewed when the change was seen: a live owner renews it before it ends, and one that is gone is freed a lease later.
A machine that is seen for the first time has no memory; it takes the server's clock as right if its own wall clock agrees with
it. Owners on this host that are dead are seen to be dead here.

**Durability.** What a crash of the server may lose without harm is committed asynchronously: renewals (the next one comes in
time), shrinking (the hold is then greater than it need be), published readings and pruning. Admissions, releases, reports and
the mark of a lagging account are on disk before they are answered.

**Lost answers.** If the connection breaks, the verb is sent once more on a new one, though it may have been done already:
`reserve` then finds its own hold, `settle` and `release` find none to release, a report is filed once, an extension has a name,
`renew` compares counts of lapses that it never resets (see `ledgers.sqlite`), and a claim to read the balance knows its
claimant. What may be lost is the answer of `release`, and that of `sweep`, whose runs are in the history all the same.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from time import CLOCK_REALTIME, clock_gettime
from typing import Any, TypeVar, cast

import psycopg
from psycopg import conninfo, errors
from psycopg.abc import PQGen

from creditguard.errors import ConfigurationError, LedgerUnavailable
from creditguard.ledgers import postgres_sql as sql
from creditguard.ledgers import rows
from creditguard.process.background import seconds
from creditguard.process.identity import ELAPSED, KERNEL, clock, is_dead, this_process
from creditguard.rules.secret import GivenSecret
from creditguard.rules.values import Grant, Hold, LiveHold, Mark, Owner, Reading

_TRIES = 4
_PRUNE_EVERY = 64
_PAGE_OF_RUNS = 500
_COOL_DOWN = 1.0

# What the URL does not say itself. All of it is for libpq here, nothing for the server to keep.
_CONNECTION = {
    "connect_timeout": "5",
    "application_name": "creditguard",
    "client_encoding": "utf8",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

_LOOK = ("clock", "ticks", "wall")
_RESERVE = sql.call(
    "reserve", "run_id", "account", "amount", "job", "labels", "balance", "available", "released",
    "owner", "ttl", *_LOOK, "wait", "waits",
)  # fmt: skip
_EXTEND = sql.call("extend", "run_id", "by", "name", "available", "released", "wait")
_SHRINK = sql.call("shrink", "run_id", "to", "budget", "wait")
_SET_LAGGING = sql.call("set_lagging", "account", "lagging", "wait")
_RENEW = sql.call("renew", "owner", "run_ids", "ttl", *_LOOK, "wait")
_SETTLE = sql.call("settle", "run_id", "account", "job", "report", "wait")
_RELEASE = sql.call("release", "run_id", "wait")
_OWNERS = sql.call("owners_of", "account", *_LOOK)
_FREE = sql.call("free", "account", "dead", "over", *_LOOK, "wait")
_TIDY = sql.call("tidy", "keep")
_RECENT = sql.call("recent", "account", "max_age")
_CLAIM = sql.call("claim", "account", "claimant", "max_age", "claim", "wait")
_PUBLISH = sql.call("publish", "account", "reading", "wait")

T = TypeVar("T")
Row = tuple[Any, ...]


class PostgresLedger:
    """A ledger in the PostgreSQL database at `url`, whose schema is made at the first verb if the role may do that.

    `ttl`: seconds that a lease lasts. `keep`: seconds that history is kept. `wait`: seconds to wait for a lock.
    For tests: `skew` is added to this machine's clocks, `is_dead` judges owners.
    """

    name = "postgresql"

    def __init__(
        self,
        url: str,
        *,
        ttl: float = 60.0,
        keep: float = 90 * 86400.0,
        wait: float = 5.0,
        skew: Callable[[], float] = float,
        is_dead: Callable[[Owner], bool] = is_dead,
    ) -> None:
        info = self._connection_info = _parse(url)
        self._passwords = {name: GivenSecret(info.pop(name)) for name in ("password", "sslpassword") if info.get(name)}
        self.ttl: float | None = ttl
        self._ttl = ttl
        self._keep = keep
        self._wait = wait
        self._lock_timeout = f"{wait * 1000:.0f}ms"
        self._skew = skew
        self._is_dead = is_dead
        self._pid = os.getpid()
        self._connection: _Connection | None = None
        self._clock = clock()
        self._failed: tuple[str, float] | None = None  # to connect, and until when nobody tries again

    def __repr__(self) -> str:
        info = self._connection_info
        return f"PostgresLedger(host={info.get('host', '')!r}, dbname={info.get('dbname', '')!r})"

    # Admission.

    def mark(self, account: str) -> Mark:
        return self._ask(sql.MARK, {"account": rows.text(account)}, _first_mark)

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        asked = {
            "run_id": rows.text(hold.id),
            "account": rows.text(hold.account),
            "amount": hold.amount,
            "job": rows.text(hold.job),
            "labels": rows.as_json(hold.labels),
            "balance": hold.balance,
            "available": available,
            "released": mark.released if mark else None,
            "owner": [owner.id, rows.text(owner.host), owner.boot, str(owner.pid), owner.started],
            "ttl": self._ttl,
            "waits": hold.waits,
        }
        return self._ask(
            _RESERVE, {**asked, **self._look()}, lambda found: Grant(found[0][0] is True, int(found[0][1]))
        )

    def extend(self, run_id: str, by: int, *, available: int | None, mark: Mark | None) -> Grant:
        asked = {
            "run_id": rows.text(run_id),
            "by": by,
            "name": os.urandom(8).hex(),
            "available": available,
            "released": mark.released if mark else None,
        }
        return self._ask(
            _EXTEND, asked, lambda found: Grant(found[0][0] is True, int(found[0][1]), found[0][2] is True)
        )

    def shrink(self, run_id: str, to: int, *, budget: int | None = None) -> None:
        self._tell(_SHRINK, {"run_id": rows.text(run_id), "to": max(to, 0), "budget": budget})

    def set_lagging(self, account: str, lagging: bool) -> None:
        self._tell(_SET_LAGGING, {"account": rows.text(account), "lagging": lagging})

    # Leases.

    def renew(self, owner: Owner, run_ids: Iterable[str]) -> frozenset[str]:
        asked = {rows.text(run_id): run_id for run_id in run_ids}
        self._clock = clock()
        values = {"owner": owner.id, "run_ids": list(asked), "ttl": self._ttl, **self._look()}
        return self._ask(_RENEW, values, lambda found: frozenset(asked[run_id] for (run_id,) in found))

    def sweep(self, account: str) -> Sequence[LiveHold]:
        self._clock = clock()
        asked = {"account": rows.text(account), **self._look()}
        owners = self._ask(_OWNERS, asked, lambda found: [(Owner(*row[:5]), row[5] is True) for row in found])
        dead = [owner.id for owner, _ in owners if self._is_dead(owner)]
        over = [owner.id for owner, is_over in owners if is_over and owner.id != this_process().id]  # stopped, not dead
        if not dead and not over:
            return ()
        values = {**asked, "dead": dead, "over": over, "wait": self._lock_timeout}
        freed = self._do(lambda connection: _sweep(connection, values))
        if freed:
            self._tidy()
        return freed

    # The end of a run.

    def settle(self, run_id: str, account: str, report: Mapping[str, object]) -> None:
        filed = {
            "run_id": rows.text(run_id),
            "account": rows.text(account),
            "job": rows.text(str(report.get("job") or "")),
            "report": rows.as_json(report),
        }
        seq = self._ask(_SETTLE, filed, lambda found: int(found[0][0] or -1))
        if seq % _PRUNE_EVERY == 0:
            self._tidy()

    def release(self, run_id: str) -> bool:
        return self._ask(_RELEASE, {"run_id": rows.text(run_id)}, lambda found: found[0][0] is True)

    # What people see.

    def holds(self, account: str | None = None, *, limit: int = 1000) -> Sequence[LiveHold]:
        asked = {"account": None if account is None else rows.text(account), "limit": max(limit, 0)}
        return self._ask(sql.HOLDS, asked, _live_holds)

    def history(
        self, *, account: str | None = None, job: str | None = None, since: datetime | None = None, limit: int = 20
    ) -> Sequence[Mapping[str, object]]:
        asked = {**_filter(account, job, since), "limit": max(limit, 0)}
        statement = sql.history(job=job is not None, account=account is not None, newest_first=True)
        return self._ask(statement, asked, lambda found: [rows.report_from_json(*row[:2]) for row in found])

    def runs(
        self, *, since: datetime | None = None, job: str | None = None, account: str | None = None
    ) -> Iterator[Mapping[str, object]]:
        asked = {**_filter(account, job, since), "seq": -1, "limit": _PAGE_OF_RUNS}
        statement = sql.history(job=job is not None, account=account is not None, newest_first=False)
        while True:
            found = self._ask(
                statement, asked, lambda found: [(*row, rows.report_from_json(*row[:2])) for row in found]
            )
            yield from (row[-1] for row in found)
            if len(found) < _PAGE_OF_RUNS:
                return
            asked |= {"seq": found[-1][2], "since": found[-1][3]}

    # Readings for others.

    def recent(self, account: str, *, max_age: float, claim: float) -> Reading | bool:
        asked = {
            "account": rows.text(account),
            "max_age": max_age,
            "claim": claim,
            "claimant": os.urandom(8).hex(),
        }
        answer = self._ask(_RECENT, asked, _published)
        if answer is True and not self._ask(_CLAIM, asked, lambda found: found[0][0]):
            return self._ask(_RECENT, asked, _published) or False  # another process claimed it, or has published by now
        return answer

    def publish(self, account: str, reading: Reading) -> None:
        self._tell(_PUBLISH, {"account": rows.text(account), "reading": rows.reading_to_json(reading)})

    def version(self) -> int:
        """The version of the schema: migrations, counted from the first."""
        return self._ask(sql.META, {}, lambda found: int(next(row[1] for row in found if row[0] == "level")))

    def init(self) -> None:
        """Create the schema, or bring it up to date. Any number of processes may do that at once."""
        self._tell("SELECT 1", {})

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            connection.close()

    def _tidy(self) -> None:
        """Prune what is old, a bounded number of rows at a time. It can wait, so whatever goes wrong is passed over."""
        try:
            self._tell(_TIDY, {"keep": self._keep})
        except LedgerUnavailable:
            pass

    def _look(self) -> dict[str, Any]:
        """This machine's own clock, for the server's to be compared with; this process's, where the machine's is not known."""
        me, mine, skew = this_process(), self._clock, self._skew()
        return {
            "clock": me.boot if me.boot and mine.name == KERNEL else me.id,
            "ticks": clock_gettime(ELAPSED) - mine.elapsed + skew,
            "wall": clock_gettime(CLOCK_REALTIME) + skew,
        }

    # Connections and errors.

    def _tell(self, statements: str, values: Mapping[str, Any]) -> None:
        self._ask(statements, values, lambda _: None)

    def _ask(self, statements: str, values: Mapping[str, Any], understand: Callable[[list[Row]], T]) -> T:
        """What is understood from the rows of the last of the statements."""
        values = {"wait": self._lock_timeout, **values}
        return self._do(lambda connection: understand(connection.ask(statements, values)))

    def _do(self, work: Callable[[_Connection], T]) -> T:
        """Do it on this process's connection, and turn whatever goes wrong into LedgerUnavailable: what somebody has written
        into a row can raise anything."""
        if self._pid != os.getpid():
            # A child drops its parent's connection in silence.
            self._pid, self._connection, self._failed, self._clock = os.getpid(), None, None, clock()
        message = ""
        try:
            return self._try(work)
        except psycopg.Error as error:
            message = self._explain(error)
        except LedgerUnavailable as error:
            message = error.message
        except Exception as error:
            message = f"holds what no creditguard wrote ({type(error).__name__})"
        except BaseException:
            self.close()  # interrupted: its answer may still be on the way
            raise
        raise LedgerUnavailable(message, self.name)

    def _try(self, work: Callable[[_Connection], T]) -> T:
        for attempt in range(_TRIES):
            reused = self._connection is not None
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return work(self._connection)
            except (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation):
                if attempt == _TRIES - 1:  # lost a race, with nothing done
                    raise
            except psycopg.Error as error:
                # Whatever it was, a new connection may do better, and be to another server after a failover.
                self.close()
                if not reused or not _is_worth_a_new_connection(error):
                    raise
        raise AssertionError("the last try returns or raises")

    def _connect(self) -> _Connection:
        if self._failed and self._failed[1] > seconds():
            raise LedgerUnavailable(self._failed[0], self.name)
        try:
            connection = _Connection.connect(
                **cast("dict[str, Any]", self._connection_info),
                **cast("dict[str, Any]", {name: each.get_secret_value() for name, each in self._passwords.items()}),
                autocommit=True,
                prepare_threshold=None,
                cursor_factory=psycopg.ClientCursor,
            )
        except psycopg.Error as error:
            # For a second nobody else tries: a dead server must not cost a timeout per verb.
            self._failed = self._explain(error), seconds() + _COOL_DOWN
            raise
        self._failed = None
        connection.patience = 2 * self._wait + 2.0  # the server gives up after twice the wait
        try:
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_schema(self, connection: _Connection) -> None:
        try:
            found = connection.ask(sql.META)
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            found = []
        meta = {row[0]: row[1] for row in found}
        encoding = found[0][2] if found else connection.ask(sql.ENCODING)[0][0]
        if encoding not in {"UTF8", "SQL_ASCII"}:
            message = f"the database is in {encoding}, which cannot hold any text: give the ledger a database in UTF8"
            raise LedgerUnavailable(message, self.name)
        version = int(meta.get("schema_version", 0))
        if version > sql.OLDEST:
            message = f"was written by a newer creditguard (schema {version}): upgrade creditguard here"
            raise LedgerUnavailable(message, self.name)
        if int(meta.get("level", version)) < len(sql.MIGRATIONS):
            try:
                self._migrate(connection)
            except errors.InsufficientPrivilege:
                pass
            else:
                return
            what = "is from an older creditguard" if version else "has no tables yet"
            message = f"{what}, and this role may not change that: run `creditguard ledger init` as one that may"
            raise LedgerUnavailable(message, self.name)

    def _migrate(self, connection: _Connection) -> None:
        with connection.transaction():
            connection.ask(sql.READ_COMMITTED)  # to see what was made while waiting for the lock
            connection.ask(sql.LOCK_SCHEMA, {"wait": self._lock_timeout})
            # IF NOT EXISTS would ask for the right to create schemas even where there is nothing to create.
            if not connection.ask(sql.HAS_SCHEMA):
                connection.ask(sql.CREATE_SCHEMA)
            if not connection.ask(sql.HAS_META):
                connection.ask(sql.CREATE_META)
            meta = {row[0]: row[1] for row in connection.ask(sql.META)}
            for migration in sql.MIGRATIONS[int(meta.get("level", meta["schema_version"])) :]:
                for statements in migration:
                    connection.ask(statements)
            connection.ask(sql.SET_LEVEL, {"level": str(len(sql.MIGRATIONS))})

    def _explain(self, error: psycopg.Error) -> str:
        """One line, without the password."""
        if isinstance(error, (errors.LockNotAvailable, errors.QueryCanceled)):
            return f"is busy: no answer within {self._wait:g} s"
        if isinstance(error, errors.InsufficientPrivilege):
            return f"{_one_line(error)}: grant this role USAGE on schema creditguard and the use of its tables"
        message = _one_line(error)
        for password in self._passwords.values():
            message = message.replace(password.get_secret_value(), "***")
        return message


def _sweep(connection: _Connection, asked: Mapping[str, Any]) -> list[LiveHold]:
    with connection.transaction():
        freed = _live_holds(connection.ask(_FREE, asked))
        if freed:
            filed = {
                "account": asked["account"],
                "run_ids": [live.hold.id for live in freed],
                "jobs": [live.hold.job for live in freed],
                "reports": [rows.as_json(rows.abandoned(live)) for live in freed],
            }
            connection.ask(sql.FILE_ABANDONED, filed)
        return freed


def _live_holds(found: list[Row]) -> list[LiveHold]:
    return [rows.live_hold(row[:12], since=row[12], lease_ends=row[13]) for row in found]


def _first_mark(found: list[Row]) -> Mark:
    return rows.mark(*found[0]) if found else Mark()


def _published(found: list[Row]) -> Reading | bool:
    for reading, claimed in found:
        if reading is not None:
            return rows.reading_from_json(reading)
        return claimed is not True
    return True


def _filter(account: str | None, job: str | None, since: datetime | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"since": since.isoformat() if since else "-infinity"}
    if account is not None:
        asked["account"] = rows.text(account)
    if job is not None:
        asked["job"] = rows.text(job)
    return asked


class _NoAnswer(psycopg.OperationalError):
    """The server, or what is between, took longer than it ever should."""


_TOOK_TIME = (errors.LockNotAvailable, errors.QueryCanceled, _NoAnswer)


class _Connection(psycopg.Connection[Row]):
    """A connection that does not wait for ever: a server, or a pooler, that is stopped keeps its connections open."""

    patience = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # At exit, or when its ledger is dropped: one that nobody closed would end in a ResourceWarning.
        weakref.finalize(self, _finish, self.pgconn, os.getpid())

    def __del__(self, *_: Any) -> None:
        pass  # in a forked child, which lets go of its parent's connection in silence

    def ask(self, statements: str, values: Mapping[str, Any] | None = None) -> list[Row]:
        """Send the statements as one message, and return the rows of the last of them."""
        with self.cursor() as cursor:
            cursor.execute(statements.encode(), values)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """As psycopg's, which comes round every tenth of a second."""
        try:
            return super().wait(_bounded(gen, seconds() + self.patience), *args, **kwargs)
        except _NoAnswer:
            self.close()  # else psycopg would try to roll back, and log why it could not, with the server's name
            raise


def _finish(connection: psycopg.pq.abc.PGconn, opened_by: int) -> None:
    if opened_by == os.getpid():
        connection.finish()


def _bounded(gen: PQGen[T], deadline: float) -> PQGen[T]:
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if seconds() > deadline:
                raise _NoAnswer("no answer from the server")
            wanted = gen.send(ready)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _is_worth_a_new_connection(error: psycopg.Error) -> bool:
    """Whether the connection is gone, or leads to a server that no longer writes, rather than that the statement failed."""
    if isinstance(error, _TOOK_TIME):
        return False
    gone = psycopg.OperationalError, psycopg.InterfaceError, errors.IdleInTransactionSessionTimeout
    return isinstance(error, (*gone, errors.ReadOnlySqlTransaction))


def _one_line(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())[:300]


def _parse(url: str) -> dict[str, str]:
    """The URL as libpq understands it. What libpq would say of a URL that it does not understand may hold the password."""
    try:
        given = {key: str(value) for key, value in conninfo.conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        given = None
    ports = (given or {}).get("port", "")
    # An unescaped "@" or "/" in a password makes the rest of it look like a host or a port.
    if given is None or "@" in given.get("host", "") or not all(port.isdigit() for port in ports.split(",") if port):
        message = "CREDITGUARD_LEDGER is not a PostgreSQL URL: percent-encode what is special in the user and password"
        raise ConfigurationError(message, "CREDITGUARD_LEDGER") from None
    return {**_CONNECTION, **given}
