"""What only the PostgreSQL ledger does: servers that are down, restart, hang or refuse, roles, schemas, and poolers' terms."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from ledger_world import ROOT, Server, in_balance, in_threads, new_owner
from promises import READING

from creditguard.errors import LedgerUnavailable
from creditguard.ledgers import postgres, postgres_sql
from creditguard.ledgers.postgres import PostgresLedger
from creditguard.process.identity import Clock, this_process
from creditguard.rules.values import Hold, Mark

OWNER = new_owner()

T = TypeVar("T")


def hold(run: str = "one", amount: int = 80) -> Hold:
    return Hold(run, "a", amount, "job")


def ledger_at(url: str, **options: Any) -> closing[PostgresLedger]:
    return closing(PostgresLedger(url, **options))


@pytest.fixture
def url(empty_server: Server) -> str:
    return empty_server.url


def failure(url: str, **options: Any) -> str:
    """What a ledger that cannot be used says: one line, without a chain to psycopg's."""
    with ledger_at(url, **options) as ledger, pytest.raises(LedgerUnavailable) as raised:
        ledger.reserve(hold(), OWNER, available=120, mark=None)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    assert "\n" not in str(raised.value)
    assert raised.value.ledger == "postgresql"
    return raised.value.message


# Servers.


def test_a_server_that_is_down_is_asked_once_a_second(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    connect = psycopg.Connection.connect.__func__  # type: ignore[attr-defined]

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(named)
        return connect(*arguments, **named)

    monkeypatch.setattr(psycopg.Connection, "connect", classmethod(counted))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: nobody else will
        with ledger_at(f"postgresql://me:hunter2@127.0.0.1:{taken.getsockname()[1]}/db") as ledger:
            said = set()
            for _ in range(5):
                with pytest.raises(LedgerUnavailable) as raised:
                    ledger.mark("a")
                said.add(raised.value.message)
            assert len(calls) == 1
            (message,) = said
            assert "refused" in message
            assert "hunter2" not in message
            time.sleep(1.1)
            with pytest.raises(LedgerUnavailable):
                ledger.mark("a")
            assert len(calls) == 2


@pytest.mark.parametrize(
    "url", ["postgresql:///db?host=/nonexistent", "postgresql://creditguard.invalid/db", "postgresql://127.0.0.1:1/db"]
)
def test_a_server_that_is_nowhere(url: str) -> None:
    assert len(failure(url)) < 400


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        failure(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/db?connect_timeout=2")
        assert time.monotonic() - start < 6


def test_a_server_that_restarts_is_found_again(server: Server, url: str) -> None:
    with ledger_at(url) as ledger, ledger_at(url) as idle:
        assert ledger.reserve(hold("before"), OWNER, available=120, mark=Mark()).admitted
        idle.mark("a")
        server.stop()
        try:
            with pytest.raises(LedgerUnavailable):
                ledger.mark("a")
        finally:
            server.start()
        assert idle.mark("a") == Mark(admitted=80, started=1), "reconnected in silence"
        assert idle.renew(OWNER, ["before"]) == frozenset()
        time.sleep(1.1)
        assert ledger.mark("a") == Mark(admitted=80, started=1)
    assert in_balance(url)


def test_a_connection_that_is_cut_is_made_anew(server: Server, url: str) -> None:
    with ledger_at(url) as ledger:
        for number in range(5):
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'creditguard'"
            )
            assert ledger.reserve(hold(str(number), 1), OWNER, available=None, mark=None).admitted
    assert in_balance(url)


def test_cut_at_any_moment_every_verb_is_done_once(server: Server, url: str) -> None:
    """Connections are cut all the while: what was asked for twice is counted once."""
    done = threading.Event()

    def cut() -> None:
        with psycopg.connect(server.url, autocommit=True) as connection:
            while not done.wait(random.uniform(0.005, 0.06)):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'creditguard'"
                )

    tries, kept = 60, 0
    with ledger_at(url) as ledger, ThreadPoolExecutor(1) as pool:
        ledger.mark("a")
        cutting = pool.submit(cut)
        try:
            for number in range(tries):
                until_done(lambda run=str(number): ledger.reserve(hold(run, 1), OWNER, available=None, mark=None))
                if number % 3 == 0:
                    kept += 1
                elif number % 3 == 1:
                    until_done(lambda run=str(number): ledger.release(run))
                else:
                    until_done(lambda run=str(number): ledger.settle(run, "a", {"n": 1}))
        finally:
            done.set()
        cutting.result()
        time.sleep(1.1)  # if the last thing was a failure to connect
        assert ledger.mark("a") == Mark(tries, tries - kept, tries, tries - kept)
        assert len(ledger.history(limit=100)) == tries // 3
    assert in_balance(url)


def until_done(verb: Any) -> None:
    """As often as it takes: a new connection may be cut as soon as it is made."""
    deadline = time.monotonic() + 20
    while True:
        try:
            verb()
            return
        except LedgerUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_locked_account_is_not_waited_for_for_ever(url: str) -> None:
    with ledger_at(url, wait=0.3) as ledger, psycopg.connect(url) as stuck:
        ledger.reserve(hold("one"), OWNER, available=None, mark=None)
        stuck.execute("SELECT 1 FROM creditguard.accounts FOR UPDATE")
        start = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="is busy: no answer within 0.3 s"):
            ledger.reserve(hold("two"), OWNER, available=None, mark=None)
        assert 0.2 < time.monotonic() - start < 2
        assert ledger.mark("a").started == 1, "reading is still possible"
        stuck.rollback()
        assert ledger.reserve(hold("two"), OWNER, available=None, mark=None).admitted


def test_a_server_that_hangs_is_not_waited_for_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections stay open, and its own timeouts do not run."""
    with ledger_at(url, wait=0.1) as ledger:
        ledger.mark("a")
        monkeypatch.setattr(postgres_sql, "MARK", "SELECT 0, 0, 0, 0 FROM pg_sleep(20) WHERE %(account)s <> ''")
        start = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="no answer from the server"):
            ledger.mark("a")
        assert time.monotonic() - start < 5
        monkeypatch.undo()
        assert ledger.mark("a") == Mark()


def test_a_server_that_hangs_in_a_sweep_is_left_without_a_word(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ledger_at(url, wait=0.1, is_dead=lambda owner: owner == OWNER) as ledger:
        ledger.reserve(hold(), OWNER, available=None, mark=None)
        monkeypatch.setattr(postgres, "_FREE", "SELECT pg_sleep(20) WHERE %(account)s <> ''")
        with pytest.raises(LedgerUnavailable, match="no answer from the server"):
            ledger.sweep("a")
        assert caplog.text == "", "psycopg's own log names the server and the role"
        monkeypatch.undo()
        assert len(ledger.sweep("a")) == 1


def test_a_renewal_that_is_under_way_is_waited_for_and_spares_the_hold(url: str) -> None:
    with ledger_at(url, ttl=0.1) as ledger, psycopg.connect(url) as renewing, ThreadPoolExecutor(1) as pool:
        ledger.reserve(hold(), OWNER, available=None, mark=None)
        time.sleep(0.15)
        renewing.execute("UPDATE creditguard.owners SET lease_ends = now() + interval '1 minute', ttl = 60")
        sweeping = pool.submit(ledger.sweep, "a")
        time.sleep(0.2)
        assert not sweeping.done()
        renewing.commit()
        assert list(sweeping.result()) == []
        assert len(ledger.holds()) == 1


@contextmanager
def stopped(monkeypatch: pytest.MonkeyPatch, before: str) -> Iterator[threading.Event]:
    """Whoever comes first to these statements is stopped before them, as by SIGSTOP or a cut cable, until the end of this."""
    ask, there, go_on = postgres._Connection.ask, threading.Event(), threading.Event()

    def stopping(connection: Any, statements: str, *values: Any) -> Any:
        if statements == before and not there.is_set():
            there.set()
            assert go_on.wait(60)
        return ask(connection, statements, *values)

    monkeypatch.setattr(postgres._Connection, "ask", stopping)
    try:
        yield there
    finally:
        go_on.set()


def test_who_is_stopped_in_the_middle_of_a_sweep_keeps_no_account(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the reports of what it freed: that is the one verb of two messages."""
    others = new_owner()
    with (
        ledger_at(url, wait=0.3) as ledger,
        ledger_at(url, wait=0.3, is_dead=lambda owner: owner == OWNER) as sweeper,
        ThreadPoolExecutor(1) as pool,
    ):
        ledger.reserve(hold("dead"), OWNER, available=None, mark=None)
        with stopped(monkeypatch, postgres_sql.FILE_ABANDONED) as there:
            sweeping = pool.submit(sweeper.sweep, "a")
            assert there.wait(20)
            until_done(lambda: ledger.reserve(hold("other"), others, available=None, mark=None))
            assert len(ledger.holds()) == 2, "nothing was freed"
        assert [live.hold.id for live in sweeping.result(20)] == ["dead"], "it does it once more"
        assert [report["run_id"] for report in ledger.history()] == ["dead"]
        assert ledger.mark("a") == Mark(160, 80, 2, 1)


def test_who_is_stopped_while_it_makes_the_schema_stops_nobody_else(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger_at(url, wait=0.3) as ledger, ledger_at(url, wait=0.3) as maker, ThreadPoolExecutor(1) as pool:
        with stopped(monkeypatch, postgres_sql.SET_LEVEL) as there:
            making = pool.submit(maker.init)
            assert there.wait(20)
            until_done(ledger.init)
        with pytest.raises(LedgerUnavailable, match="idle-in-transaction"):
            making.result(20)
        maker.init()


def test_a_run_that_is_settled_while_its_duplicate_waits_is_not_revived(url: str) -> None:
    """What was committed while a statement waited for the account's lock is seen after it."""
    with (
        ledger_at(url) as ledger,
        ledger_at(url) as late,
        psycopg.connect(url) as locking,
        ThreadPoolExecutor(1) as pool,
    ):
        ledger.reserve(hold(), OWNER, available=None, mark=None)
        late.mark("a")
        locking.execute("SELECT 1 FROM creditguard.accounts FOR UPDATE")
        duplicate = pool.submit(late.reserve, hold(), OWNER, available=None, mark=None)
        time.sleep(0.2)
        assert not duplicate.done()
        locking.execute("DELETE FROM creditguard.holds")
        locking.execute("UPDATE creditguard.accounts SET released = admitted, ended = started")
        locking.execute(
            "INSERT INTO creditguard.history (run_id, account, job, finished_at, report) VALUES ('one', 'a', '', now(), '{}')"
        )
        locking.commit()
        assert not duplicate.result().admitted
        assert ledger.mark("a") == Mark(80, 80, 1, 1)


# Schemas and roles.


@pytest.fixture
def roles(empty_server: Server) -> Iterator[Server]:
    for role in ("stranger", "locked", "worker"):
        empty_server.execute(f"DROP ROLE IF EXISTS {role}")
        empty_server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
    yield empty_server
    empty_server.execute("DROP SCHEMA IF EXISTS creditguard CASCADE")
    for role in ("stranger", "locked", "worker"):
        empty_server.execute(f"DROP OWNED BY {role}")
        empty_server.execute(f"DROP ROLE {role}")


def test_a_wrong_password_is_refused_and_not_repeated(roles: Server) -> None:
    message = failure(roles.url_of("locked", "wrong-secret"))
    assert "password authentication failed" in message
    assert "wrong-secret" not in message
    ledger = PostgresLedger(roles.url_of("locked", "wrong-secret"))
    assert "secret" not in repr(ledger)


def test_the_right_password_with_no_rights(roles: Server) -> None:
    message = failure(roles.url_of("locked", "hunter2"))
    assert "run `creditguard ledger init`" in message


def test_a_role_that_may_not_create_may_use_what_was_made_for_it(roles: Server) -> None:
    assert "has no tables yet" in failure(roles.url_of("worker"))
    with ledger_at(roles.url) as ledger:
        ledger.init()
        ledger.init()
    message = failure(roles.url_of("worker"))
    assert "permission denied" in message
    assert "grant" in message
    roles.execute("GRANT USAGE ON SCHEMA creditguard TO worker")
    roles.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA creditguard TO worker")
    with ledger_at(roles.url_of("worker")) as ledger:
        assert ledger.reserve(hold(), OWNER, available=120, mark=None).admitted
        for number in range(70):
            ledger.settle(str(number), "a", {"n": number})
        ledger.sweep("a")
        assert ledger.renew(OWNER, ["one"]) == frozenset()
        assert len(ledger.history(limit=100)) == 70


def test_the_roles_of_the_documentation(empty_server: Server) -> None:
    (block,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/postgresql.md").read_text(), re.DOTALL)
    try:
        for statement in block.split(";"):
            empty_server.execute(statement)
        assert "has no tables yet" in failure(empty_server.url_of("jobs"))
        with ledger_at(empty_server.url_of("creditguard_owner")) as ledger:
            ledger.init()
        with ledger_at(empty_server.url_of("jobs")) as ledger:
            assert ledger.reserve(hold(), OWNER, available=120, mark=None).admitted
            ledger.shrink("one", 5)
            assert ledger.extend("one", 5, available=120, mark=None).admitted
            ledger.set_lagging("a", lagging=True)
            ledger.publish("a", READING)
            assert ledger.recent("a", max_age=5, claim=5) == READING
            assert list(ledger.sweep("a")) == []
            for number in range(70):
                ledger.settle(str(number), "a", {})
            assert ledger.release("one")
    finally:
        for role in ("creditguard_owner", "jobs"):
            empty_server.execute(f"DROP OWNED BY {role} CASCADE")
            empty_server.execute(f"DROP ROLE {role}")


def test_a_role_that_owns_an_empty_schema_fills_it(roles: Server) -> None:
    roles.execute("CREATE SCHEMA creditguard AUTHORIZATION worker")
    with ledger_at(roles.url_of("worker")) as ledger:
        assert ledger.reserve(hold(), OWNER, available=120, mark=None).admitted


def test_a_role_that_may_only_read(roles: Server) -> None:
    with ledger_at(roles.url) as ledger:
        ledger.reserve(hold(), OWNER, available=None, mark=None)
    roles.execute("GRANT USAGE ON SCHEMA creditguard TO stranger")
    roles.execute("GRANT SELECT ON ALL TABLES IN SCHEMA creditguard TO stranger")
    with ledger_at(roles.url_of("stranger")) as ledger:
        assert ledger.mark("a").started == 1
        assert len(ledger.holds()) == 1
        with pytest.raises(LedgerUnavailable, match="permission denied"):
            ledger.release("one")


def test_a_read_only_server(roles: Server) -> None:
    with ledger_at(roles.url) as ledger:
        ledger.init()
    roles.execute("GRANT ALL ON SCHEMA creditguard TO worker")
    roles.execute("GRANT ALL ON ALL TABLES IN SCHEMA creditguard TO worker")
    roles.execute("ALTER ROLE worker SET default_transaction_read_only = on")
    assert "read-only" in failure(roles.url_of("worker"))


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_whatever_the_isolation_level_is_by_default(roles: Server, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    roles.execute("CREATE SCHEMA creditguard AUTHORIZATION worker")
    roles.execute(f"ALTER ROLE worker SET default_transaction_isolation = '{level}'")

    with ledger_at(roles.url_of("worker")) as ledger:
        ledger.init()
    monkeypatch.setattr(postgres, "_TRIES", 1)  # not by trying again until there is no conflict

    def work(index: int) -> int:
        with ledger_at(roles.url_of("worker")) as ledger:
            grants = [
                ledger.reserve(hold(f"{index}-{n}", 1), OWNER, available=20, mark=Mark()).admitted for n in range(10)
            ]
            return sum(grants)

    assert sum(in_threads(4, work)) == 20
    assert in_balance(roles.url)


def test_many_may_create_the_schema_at_once(url: str) -> None:
    def work(index: int) -> bool:
        with ledger_at(url) as ledger:
            return ledger.reserve(hold(str(index), 1), OWNER, available=None, mark=None).admitted

    assert in_threads(6, work) == [True] * 6
    assert in_balance(url)


@contextmanager
def paused(url: str, when: str, work: Callable[[], T]) -> Iterator[tuple[psycopg.Connection[Any], Future[T]]]:
    """A connection, and the work, which waits in the server at `when` (a trigger's event) until the connection lets it go on."""
    with psycopg.connect(url, autocommit=True) as other, ThreadPoolExecutor(1) as thread:
        other.execute(
            f"""CREATE FUNCTION creditguard.pause() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
            CREATE TRIGGER pause BEFORE {when} EXECUTE FUNCTION creditguard.pause()""".encode()
        )
        other.execute("SELECT pg_advisory_lock(1)")
        working = thread.submit(work)
        wait_for_lock(other, "advisory")
        yield other, working


def wait_for_lock(other: psycopg.Connection[Any], kind: str) -> None:
    """Until some session waits for a lock of the kind."""
    deadline = time.monotonic() + 20
    while not other.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = %s", (kind,)).fetchone():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_account_that_another_makes_at_the_same_moment_admits(url: str) -> None:
    """Another process makes the account right after the statement that admits has looked, and found none."""
    with ledger_at(url) as ledger:
        ledger.init()

        def reserve() -> bool:
            return ledger.reserve(hold(), OWNER, available=100, mark=Mark()).admitted

        with paused(url, "UPDATE ON creditguard.accounts", reserve) as (other, admitted):
            other.execute("INSERT INTO creditguard.accounts (account) VALUES ('a')")
            other.execute("SELECT pg_advisory_unlock(1)")
            assert admitted.result(10)
    assert in_balance(url)


def test_pruning_does_not_get_in_the_way_of_an_owner_that_comes_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept for a month. It has its clock's row, and wants its process's, when both are to be pruned."""
    monkeypatch.setattr(postgres, "_TRIES", 1)  # not by trying again after a deadlock
    with ledger_at(url) as ledger, ledger_at(url) as pruning, ThreadPoolExecutor(1) as pool:
        ledger.reserve(hold("before"), OWNER, available=None, mark=None)
        ledger.release("before")
        pruning.init()

        def reserve() -> bool:
            return ledger.reserve(hold(), OWNER, available=None, mark=None).admitted

        with psycopg.connect(url) as month:
            month.execute("UPDATE creditguard.owners SET lease_ends = now() - interval '31 days'")
            month.execute("UPDATE creditguard.clocks SET seen = now() - interval '31 days'")
        with paused(url, "INSERT ON creditguard.owners FOR EACH ROW", reserve) as (other, admitted):
            pruned = pool.submit(pruning._tell, postgres._TIDY, {"keep": 1.0})
            wait_for_lock(other, "transactionid")
            other.execute("SELECT pg_advisory_unlock(1)")
            assert admitted.result(10)
            pruned.result(10)


def test_versions_of_the_schema(url: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger_at(url) as ledger:
        ledger.reserve(hold(), OWNER, available=None, mark=None)
    present = postgres_sql.MIGRATIONS
    migrations = (*present, ("ALTER TABLE creditguard.holds ADD COLUMN note text",))
    monkeypatch.setattr(postgres_sql, "MIGRATIONS", (*present, ("CREATE TABLE creditguard.extra (x int); nonsense",)))
    assert "syntax error" in failure(url)
    monkeypatch.setattr(postgres_sql, "MIGRATIONS", migrations)
    with ledger_at(url) as ledger:
        assert ledger.mark("a").started == 1
    found = dict(server.execute("SELECT key, value FROM creditguard.meta"))
    assert found == {"schema_version": "1", "level": str(len(migrations))}
    monkeypatch.setattr(postgres_sql, "MIGRATIONS", present)
    with ledger_at(url) as ledger:
        assert ledger.mark("a").started == 1, "what an older program can live with does not shut it out"
    server.execute("UPDATE creditguard.meta SET value = 2 WHERE key = 'schema_version'")
    assert "newer creditguard (schema 2): upgrade creditguard here" in failure(url)


def test_a_schema_that_is_dropped_under_us_is_an_error_and_then_made_anew(url: str, server: Server) -> None:
    with ledger_at(url) as ledger:
        ledger.mark("a")
        server.execute("DROP SCHEMA creditguard CASCADE")
        with pytest.raises(LedgerUnavailable, match="does not exist"):
            ledger.mark("a")
        assert ledger.mark("a") == Mark()


def test_a_database_that_cannot_hold_any_text(server: Server) -> None:
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        message = failure(server.url.replace("/postgres?", "/latin?"))
        assert message == "the database is in LATIN1, which cannot hold any text: give the ledger a database in UTF8"
    finally:
        server.execute("DROP DATABASE latin")


ODD_PATHS = ["", "nosuch", "creditguard", "public, creditguard", '"$user"', "evil, pg_catalog"]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_whatever_the_search_path_is(roles: Server, path: str) -> None:
    """Even one that has other functions and operators in it than it should."""
    roles.execute("DROP SCHEMA IF EXISTS evil CASCADE")
    roles.execute("CREATE SCHEMA evil")
    try:
        roles.execute(
            "CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'"
        )
        roles.execute("CREATE FUNCTION evil.less(numeric, numeric) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
        roles.execute("CREATE OPERATOR evil.>= (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = evil.less)")
        roles.execute("CREATE TABLE evil.holds (x int)")
        roles.execute("GRANT USAGE ON SCHEMA evil TO worker")
        roles.execute("CREATE SCHEMA creditguard AUTHORIZATION worker")
        roles.execute("ALTER ROLE worker SET search_path = " + (path or "''"))
        with ledger_at(roles.url_of("worker")) as ledger:
            assert ledger.reserve(hold("one"), OWNER, available=120, mark=ledger.mark("a")).admitted
            assert not ledger.reserve(hold("two"), OWNER, available=120, mark=ledger.mark("a")).admitted
            assert ledger.renew(OWNER, ["one"]) == frozenset()
            assert [live.hold.id for live in ledger.holds()] == ["one"]
            assert list(ledger.sweep("a")) == []
            assert ledger.recent("a", max_age=1, claim=1) is True
            ledger.settle("one", "a", {"job": "job"})
            assert len(ledger.history(job="job")) == len([*ledger.runs(account="a")]) == 1
        assert in_balance(roles.url)
    finally:
        roles.execute("DROP SCHEMA evil CASCADE")


# Poolers.


def test_nothing_outlives_a_transaction(url: str, server: Server) -> None:
    """What a pooler that lends connections per transaction would lose, or lend to others with the connection."""
    with ledger_at(url) as ledger:
        ledger.reserve(hold(), OWNER, available=None, mark=Mark())
        ledger.renew(OWNER, ["one"])
        ledger.sweep("a")
        for number in range(7):
            ledger.settle(str(number), "a", {})
        ledger.recent("a", max_age=1, claim=1)
        connection = ledger._connection
        assert connection
        assert connection.ask("SELECT name FROM pg_prepared_statements") == []
        assert connection.ask("SELECT pid FROM pg_locks WHERE locktype = 'advisory'") == []
        assert connection.ask("SELECT * FROM pg_listening_channels()") == []
        # The level of a transaction is set anew for each, though it stays in this list.
        changed = "SELECT name FROM pg_settings WHERE source = 'session' AND name <> 'transaction_isolation'"
        assert connection.ask(changed) == []
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.fixture
def pooled(url: str) -> Iterator[str]:
    """The URL of a PgBouncer before the server, which has two connections and lends them for a transaction."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("there is no pgbouncer here")
    data = url.rpartition("host=")[2]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the path of a socket must be short
        settings = Path(folder, "pgbouncer.ini")
        settings.write_text(
            f"[databases]\npostgres = host={data} user=postgres\n[pgbouncer]\npool_mode = transaction\n"
            f"default_pool_size = 2\nauth_type = any\nlisten_port = 6432\nlisten_addr =\nunix_socket_dir = {folder}\n"
        )
        Path(folder).chmod(0o755)
        server_user = Path(data).stat().st_uid  # it refuses to be root
        os.chown(folder, server_user, -1)
        user = {"user": server_user} if os.getuid() == 0 else {}
        running = subprocess.Popen([program, "-q", settings], stderr=subprocess.DEVNULL, **user)
        try:
            for _ in range(500):
                if Path(folder, ".s.PGSQL.6432").exists():
                    break
                time.sleep(0.01)
            yield f"postgresql://postgres@/postgres?host={folder}&port=6432"
        finally:
            running.kill()
            running.wait()


def test_behind_a_pooler_that_lends_connections_for_a_transaction(pooled: str, url: str) -> None:
    """Six clients on two connections; the pool of credits is right, and no more is admitted than there is."""

    def client(number: int) -> int:
        admitted, owner = 0, new_owner()
        with ledger_at(pooled) as ledger:
            for turn in range(40):
                run = f"{number}-{turn}"
                if ledger.reserve(hold(run, 30), owner, available=100, mark=ledger.mark("a")).admitted:
                    admitted += 1
                    assert ledger.renew(owner, [run]) == frozenset()
                    ledger.shrink(run, 10)
                    ledger.extend(run, 5, available=100, mark=ledger.mark("a"))
                    ledger.settle(run, "a", {"job": "job"})
                mark = ledger.mark("a")
                assert 0 <= mark.admitted - mark.released <= 100
        return admitted

    with ThreadPoolExecutor(6) as threads:
        admitted = sum(threads.map(client, range(6)))
    with ledger_at(url) as ledger:
        mark = ledger.mark("a")
        assert (mark.started, mark.ended, mark.admitted - mark.released) == (admitted, admitted, 0)
        assert len(ledger.history(limit=1000)) == admitted > 60
    assert in_balance(url)


def test_a_lost_answer_changes_nothing(url: str) -> None:
    """Each verb that writes, done twice as after a lost answer."""
    with ledger_at(url) as ledger:
        twice = [ledger.reserve(hold(), OWNER, available=80, mark=Mark()) for _ in range(2)]
        assert twice[0] == twice[1]
        asked = {"account": "a", "max_age": 60, "claim": 5, "claimant": "me"}

        def claim(**who: str) -> bool:
            return bool(ledger._ask(postgres._CLAIM, {**asked, **who}, lambda found: found[0][0]))

        assert [claim(), claim(), claim(claimant="other")] == [True, True, False]
        extended = {"run_id": "one", "by": 20, "name": "this", "available": 100, "released": 0}
        for _ in range(2):
            assert ledger._ask(postgres._EXTEND, extended, lambda found: found) == [(True, 80, False)]
        ledger.shrink("one", 80)
        ledger.shrink("one", 80)
        for _ in range(2):
            ledger.settle("one", "a", {"n": 1})
        assert ledger.mark("a") == Mark(100, 100, 1, 1)


# Clocks.


def test_which_machine_a_clock_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """To its boot, or, where boot or clock are not known, to the process alone."""
    ledger, me = PostgresLedger("postgresql:///none"), this_process()
    assert ledger._look()["clock"] == me.boot
    monkeypatch.setattr(ledger, "_clock", Clock(""))
    assert ledger._look()["clock"] == me.id


# History.


def test_runs_come_in_the_order_of_time_whatever_the_clock_of_the_session_shows(
    url: str, empty_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the hour that a clock shows twice, 02:45 of summer time is before 02:15 of winter time."""
    monkeypatch.setenv("PGTZ", "Europe/Berlin")
    with ledger_at(url) as ledger:
        for run, at in (("first", "2026-10-25 00:45+00"), ("second", "2026-10-25 01:15+00")):
            ledger.settle(run, "a", {"run_id": run, "job": "job"})
            empty_server.execute(f"UPDATE creditguard.history SET finished_at = '{at}' WHERE run_id = '{run}'")
        assert [report["run_id"] for report in ledger.runs()] == ["first", "second"]
        assert [report["run_id"] for report in ledger.history()] == ["second", "first"]
