"""The ledger of a fleet: PostgreSQL, in a schema of its own, shared by every host that is given the same URL.

**One round trip, one transaction.** A verb that writes goes to the server as one message of several statements, which the server
runs as one transaction. The first locks the account's row, so everything that touches an account's holds or totals happens
one at a time; the next, at READ COMMITTED, sees all that was committed before the lock was had. (In a single statement it would
not: a statement that waits for a row looks at everything else as it was before the wait.) Locks are taken in one order, account
and then owner, so no two verbs wait for each other. Plain SQL: no stored functions.

**Poolers.** Nothing outlives a transaction: no prepared statements, no session settings, no session locks, no LISTEN. So the
ledger works through a pooler that lends a connection per transaction. Timeouts are `SET LOCAL`, in the same message.

**Time.** The server's clock decides when a lease ends, as it is when a lock has been had (`clock_timestamp()`, not `now()`).
Owners on this host that are dead are seen to be dead here.

**Lost answers.** If the connection breaks, the verb is sent once more on a new one, though it may have been done already:
`reserve` then finds its own hold, `settle` and `release` find none to release, a report is filed once, `renew` compares counts
of lapses that it never resets (see `ledgers.sqlite`), and a claim to read the balance knows its claimant. What may be lost is
only a count: of `sweep`, and whether `release` released anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import psycopg
from psycopg import conninfo, errors
from psycopg.abc import PQGen

from creditguard.errors import ConfigurationError, LedgerUnavailable
from creditguard.ledgers import postgres_sql as sql
from creditguard.ledgers import rows
from creditguard.ledgers.turns import Turn, Turns, seconds
from creditguard.process.identity import is_dead
from creditguard.rules.values import Grant, Hold, LiveHold, Mark, Owner, Reading

_TRIES = 4
_PRUNE_EVERY = 64

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

T = TypeVar("T")
Row = tuple[Any, ...]


class PostgresLedger:
    """A ledger in the PostgreSQL database at `url`, whose schema is made at the first verb if the role may do that.

    `ttl`: seconds that a lease lasts. `keep`: seconds that history is kept. `wait`: seconds to wait for a lock.
    For tests: `clock` is the SQL of the ledger's clock, `is_dead` judges owners.
    """

    name = "postgresql"

    def __init__(
        self,
        url: str,
        *,
        ttl: float = 60.0,
        keep: float = 90 * 86400.0,
        wait: float = 5.0,
        clock: str = "clock_timestamp()",
        is_dead: Callable[[Owner], bool] = is_dead,
    ) -> None:
        self._connection_info = _parse(url)
        self.ttl: float | None = ttl
        self._ttl = ttl
        self._keep = keep
        self._wait = wait
        self._statements = sql.Statements(clock, wait)
        self._is_dead = is_dead
        self._turns: Turns[_Connection] = Turns(self.name, inheritable=True)

    def __repr__(self) -> str:
        info = self._connection_info
        return f"PostgresLedger(host={info.get('host', '')!r}, dbname={info.get('dbname', '')!r})"

    def mark(self, account: str) -> Mark:
        for admitted, released, started, ended in self._ask(sql.MARK, {"account": rows.text(account)}):
            return Mark(int(admitted), int(released), started, ended)
        return Mark()

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        asked = {
            "run_id": rows.text(hold.id),
            "account": rows.text(hold.account),
            "amount": hold.amount,
            "job": rows.text(hold.job),
            "labels": rows.labels_to_json(hold.labels),
            "available": available,
            "released": mark.released if mark else None,
            "owner": owner.id,
            "host": rows.text(owner.host),
            "boot": owner.boot,
            "pid": owner.pid,
            "started": owner.started,
            "ttl": self._ttl,
        }
        ((admitted, held_by_others),) = self._ask(self._statements.reserve, asked)
        return Grant(admitted=admitted, held_by_others=int(held_by_others))

    def renew(self, owner: Owner, run_ids: Iterable[str]) -> frozenset[str]:
        asked = {rows.text(run_id): run_id for run_id in run_ids}
        lost = self._ask(self._statements.renew, {"owner": owner.id, "ttl": self._ttl, "run_ids": list(asked)})
        return frozenset(asked[run_id] for (run_id,) in lost)

    def settle(self, run_id: str, account: str, report: Mapping[str, object]) -> None:
        if self._turns.interrupts(lambda: self.settle(run_id, account, report)):
            return
        filed = {
            "run_id": rows.text(run_id),
            "account": rows.text(account),
            "job": rows.text(str(report.get("job") or "")),
            "report": rows.report_to_json(report),
        }
        for (seq,) in self._ask(self._statements.settle, filed):
            if seq % _PRUNE_EVERY == 0:
                self._tidy()

    def release(self, run_id: str) -> bool:
        if self._turns.interrupts(lambda: self.release(run_id)):
            return False
        return bool(self._ask(self._statements.release, {"run_id": rows.text(run_id)}))

    def sweep(self, account: str) -> int:
        asked = {"account": rows.text(account)}
        owners = self._ask(self._statements.owners_in_account, asked)
        dead = [row[0] for row in owners if self._is_dead(Owner(*row[:5]))]
        over = [row[0] for row in owners if row[5]]
        if not dead and not over:
            return 0
        freed = sum(int(row[0]) for row in self._ask(self._statements.free, {**asked, "dead": dead, "over": over}))
        if freed:
            self._tidy()
        return freed

    def holds(self, account: str | None = None) -> Sequence[LiveHold]:
        found = self._ask(sql.HOLDS, {"account": None if account is None else rows.text(account)})
        return [rows.live_hold(row[:5], row[5:10], since=row[10], lease_ends=row[11]) for row in found]

    def history(
        self, *, account: str | None = None, job: str | None = None, limit: int = 20
    ) -> Sequence[Mapping[str, object]]:
        asked = {
            "account": None if account is None else rows.text(account),
            "job": None if job is None else rows.text(job),
            "limit": max(limit, 0),
        }
        return [rows.report_from_json(*row) for row in self._ask(sql.HISTORY, asked)]

    def recent(self, account: str, *, max_age: float, claim: float) -> Reading | bool:
        asked = {
            "account": rows.text(account),
            "max_age": max_age,
            "claim": claim,
            "claimant": os.urandom(8).hex(),
        }
        answer = self._published(asked)
        if answer is True and not self._ask(self._statements.claim, asked):
            return self._published(asked) or False  # another process claimed it, or has published by now
        return answer

    def publish(self, account: str, reading: Reading) -> None:
        self._ask(self._statements.publish, {"account": rows.text(account), "reading": rows.reading_to_json(reading)})

    def init(self) -> None:
        """Create the schema, or bring it up to date. Any number of processes may do that at once."""
        with self._turns.take() as turn:
            self._perform(turn, lambda connection: connection.execute("SELECT 1").fetchall())

    def close(self) -> None:
        self._turns.close()

    def _published(self, asked: Mapping[str, Any]) -> Reading | bool:
        for reading, claimed in self._ask(self._statements.reading, asked):
            if reading is not None:
                return rows.reading_from_json(reading)
            return not claimed
        return True

    def _tidy(self) -> None:
        """Prune what is old, a bounded number of rows at a time. It can wait, so whatever goes wrong is passed over."""
        try:
            self._ask(self._statements.prune, {"keep": self._keep})
            self._ask(self._statements.forget_owners, {})
        except LedgerUnavailable:
            pass

    # Turns, connections and errors.

    def _ask(self, statements: str, values: Mapping[str, Any]) -> list[Row]:
        with self._turns.take() as turn:
            return self._perform(turn, lambda connection: connection.ask(statements, values))

    def _perform(self, turn: Turn[_Connection], work: Callable[[_Connection], T]) -> T:
        failure: psycopg.Error | None = None
        for _ in range(_TRIES):
            reused = turn.connection is not None
            try:
                connection = turn.connection
                if connection is None:
                    connection = turn.connection = self._connect(turn)
                return work(connection)
            except (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation) as error:
                failure = error  # lost a race, with nothing done
            except psycopg.Error as error:
                failure = error
                # Whatever it was, a new connection may do better, and be to another server after a failover.
                turn.drop()
                if not reused or not _is_worth_a_new_connection(error):
                    break
            except BaseException:
                turn.drop()  # interrupted: its answer may still be on the way
                raise
        assert failure is not None  # noqa: S101 - there is no other way out of the loop
        unavailable = LedgerUnavailable(self._explain(failure), self.name)
        raise turn.failed(unavailable) if isinstance(failure, _TOOK_TIME) else unavailable

    def _connect(self, turn: Turn[_Connection]) -> _Connection:
        message = None
        try:
            connection = _Connection.connect(
                **cast("dict[str, Any]", self._connection_info),
                autocommit=True,
                prepare_threshold=None,
                cursor_factory=psycopg.ClientCursor,
            )
        except psycopg.Error as error:
            message = self._explain(error)
        if message is not None:
            # For a second nobody else tries: a dead server must not cost a timeout per verb.
            raise turn.failed(LedgerUnavailable(message, self.name), cool_down=1.0)
        connection.patience = 2 * self._wait + 2.0  # the server gives up after twice the wait
        try:
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_schema(self, connection: _Connection) -> None:
        try:
            found = connection.ask(sql.VERSION, {})
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            found = []
        version = int(found[0][0]) if found else 0
        if version > len(sql.MIGRATIONS):
            message = f"was written by a newer creditguard (schema {version}): upgrade creditguard here"
            raise LedgerUnavailable(message, self.name)
        if version < len(sql.MIGRATIONS):
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
            connection.ask(sql.READ_COMMITTED, {})  # to see what was made while waiting for the lock
            connection.ask(sql.LOCK_SCHEMA, {})
            # IF NOT EXISTS would ask for the right to create schemas even where there is nothing to create.
            if not connection.ask(sql.HAS_SCHEMA, {}):
                connection.ask(sql.CREATE_SCHEMA, {})
            if not connection.ask(sql.HAS_META, {}):
                connection.ask(sql.CREATE_META, {})
            ((version,),) = connection.ask(sql.VERSION, {})
            for migration in sql.MIGRATIONS[int(version) :]:
                connection.ask(migration, {})
            connection.ask(sql.SET_VERSION, {"version": str(len(sql.MIGRATIONS))})

    def _explain(self, error: psycopg.Error) -> str:
        """One line, without the password."""
        if isinstance(error, (errors.LockNotAvailable, errors.QueryCanceled)):
            return f"is busy: no answer within {self._wait:g} s"
        if isinstance(error, errors.InsufficientPrivilege):
            return f"{_one_line(error)}: grant this role USAGE on schema creditguard and the use of its tables"
        message = _one_line(error)
        password = self._connection_info.get("password")
        return message.replace(password, "***") if password else message


class _NoAnswer(psycopg.OperationalError):
    """The server, or what is between, took longer than it ever should."""


_TOOK_TIME = (errors.LockNotAvailable, errors.QueryCanceled, _NoAnswer)


class _Connection(psycopg.Connection[Row]):
    """A connection that does not wait for ever: a server, or a pooler, that is stopped keeps its connections open."""

    patience = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened_by = os.getpid()

    def __del__(self, *args: Any, getpid: Callable[[], int] = os.getpid) -> None:
        # A forked child lets go of its parent's connection in silence. psycopg does not say goodbye to the server then. At the
        # interpreter's end `os` may be gone by now, hence its function as a default.
        if getattr(self, "_opened_by", None) == getpid():
            super().__del__(*args)

    def ask(self, statements: str, values: Mapping[str, Any]) -> list[Row]:
        """Send the statements as one message, and return the rows of the last of them."""
        with self.cursor() as cursor:
            cursor.execute(statements.encode(), values)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """As psycopg's, which comes round every tenth of a second."""
        return super().wait(_bounded(gen, seconds() + self.patience), *args, **kwargs)


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
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction))


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
