"""What only the SQLite ledger does: its file, the locks beside it, its clock, and all that can be wrong with a file."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ledger_world import ROOT, Agent, in_balance, in_threads, new_owner

from creditguard.errors import LedgerUnavailable
from creditguard.ledgers import default_path, filelock, sqlite_file
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.ledgers.sqlite_sql import MIGRATIONS
from creditguard.process import identity
from creditguard.rules.values import Hold, Mark

OWNER = new_owner()


def hold(run: str = "one", amount: int = 80) -> Hold:
    return Hold(run, "a", amount, "job")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def ledger_at(path: Path, **options: Any) -> closing[SqliteLedger]:
    return closing(SqliteLedger(str(path), **options))


def failure(path: Path, **options: Any) -> str:
    """What every verb says of a ledger that cannot be used: one line."""
    verbs: list[Callable[[SqliteLedger], object]] = [
        lambda ledger: ledger.reserve(hold(), OWNER, available=120, mark=Mark()),
        lambda ledger: ledger.settle("one", "a", {}),
        lambda ledger: ledger.sweep("a"),
        lambda ledger: ledger.mark("a"),
    ]
    said = []
    for verb in verbs:
        with ledger_at(path, **options) as ledger, pytest.raises(LedgerUnavailable) as raised:
            verb(ledger)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__
        assert "\n" not in str(raised.value)
        assert raised.value.ledger == "sqlite"
        said.append(raised.value.message)
    return said[0]


# The file.


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_everything_is_the_users_alone_whatever_the_umask(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "new"))
    before = os.umask(umask)
    try:
        with ledger_at(default_path()) as ledger:
            ledger.reserve(hold(), OWNER, available=None, mark=None)
            modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    finally:
        os.umask(before)
    assert modes == {
        "new": 0o700,
        "new/creditguard": 0o700,
        "new/creditguard/ledger.db": 0o600,
        "new/creditguard/ledger.db-wal": 0o600,
        "new/creditguard/ledger.db-shm": 0o600,
        "new/creditguard/ledger.db-lock": 0o600,
    }
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_file_that_others_may_use_keeps_its_mode_and_its_sidecars_follow(path: Path) -> None:
    path.touch()
    path.chmod(0o660)
    user, group = (1234, 1235) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, user, group)
    with ledger_at(path) as ledger:
        ledger.reserve(hold(), OWNER, available=None, mark=None)
        for name in ("", "-wal", "-shm", "-lock"):
            status = path.with_name(path.name + name).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o660, user, group), name


def test_many_processes_may_make_the_file_at_once(path: Path) -> None:
    code = f"""
import sys
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.rules.values import Hold
from creditguard.process.identity import this_process
ledger = SqliteLedger({str(path)!r})
sys.stdin.readline()
ledger.reserve(Hold(this_process().id, "a", 1, "job"), this_process(), available=None, mark=None)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    makers = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=environment) for _ in range(6)]
    time.sleep(0.5)
    for maker in makers:
        maker.communicate(b"\n")
        assert maker.returncode == 0
    with ledger_at(path) as ledger:
        assert ledger.mark("a").started == 6


def test_a_file_that_was_deleted_under_us_is_made_anew(path: Path) -> None:
    with ledger_at(path) as ledger, ledger_at(path) as other:
        ledger.reserve(hold("one"), OWNER, available=None, mark=None)
        for name in path.parent.glob("ledger.db*"):
            name.unlink()
        assert other.mark("a") == Mark()
        ledger.reserve(hold("two"), OWNER, available=None, mark=None)
        assert [live.hold.id for live in other.holds()] == ["two"]


def test_a_new_file_that_another_thread_makes_too_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.touch()
    ask, making = sqlite_file.LedgerFile._all, []

    def lock_just_before(file: sqlite_file.LedgerFile, statement: str) -> list[Any]:
        if statement == "PRAGMA journal_mode = WAL" and not making:
            shell.execute("BEGIN IMMEDIATE")
            making.append(threading.Timer(0.2, shell.rollback))
            making[0].start()
        return ask(file, statement)

    monkeypatch.setattr(sqlite_file.LedgerFile, "_all", lock_just_before)
    with ledger_at(path) as ledger, shell_at(path) as shell:
        assert ledger.reserve(hold(), OWNER, available=120, mark=None).admitted
        making[0].join()


@pytest.mark.parametrize("removed", [["-shm"], ["-wal"], ["-wal", "-shm"], [""], ["", "-wal", "-shm"], ["-lock"]])
def test_whatever_is_removed_under_the_living_no_hold_goes_silently(
    path: Path, agents: Callable[..., Agent], removed: list[str]
) -> None:
    """SQLite goes on with a file that is gone, and who comes later uses another: then neither sees what the other holds."""
    living = [agents(f"sqlite:///{path}"), agents(f"sqlite:///{path}")]
    admitted = {agent: [f"first-{agent.pid}"] for agent in living if _admits(agent, f"first-{agent.pid}")}
    assert len(admitted) == 2
    for ending in removed:
        path.with_name(f"ledger.db{ending}").unlink()
    late = agents(f"sqlite:///{path}")
    for turn in range(2):
        for agent in (late, *living):
            if _admits(agent, f"{turn}-{agent.pid}"):
                admitted.setdefault(agent, []).append(f"{turn}-{agent.pid}")
    held = {run for agent, runs in admitted.items() for run in {*runs} - {*agent.ask("renew")}}
    assert len(held) == 3, "all that fit, and no more"
    with ledger_at(path) as ledger:
        assert {live.hold.id for live in ledger.holds()} == held
    assert in_balance(f"sqlite:///{path}")


def _admits(agent: Agent, run: str) -> bool:
    try:
        return bool(agent.ask("reserve", run=run, amount=40, available=120))
    except AssertionError as refused:
        assert "LedgerUnavailable" in str(refused)
        return False


def test_the_last_to_close_leaves_one_file(path: Path) -> None:
    with ledger_at(path) as ledger:
        ledger.mark("a")
    assert {name.name for name in path.parent.iterdir()} == {"ledger.db", "ledger.db-lock"}


# Versions.


def test_each_level_of_the_schema_becomes_the_present_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger_at(path) as ledger:
        ledger.reserve(hold(), OWNER, available=None, mark=None)
        monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*MIGRATIONS, ("ALTER TABLE holds ADD COLUMN note TEXT",)))
        with ledger_at(path) as newer:
            assert newer.mark("a").started == 1
        monkeypatch.undo()
        ledger.close()
        assert ledger.mark("a").started == 1, "what an older program can live with does not shut it out"
        with shell_at(path) as sql:
            sql.execute("UPDATE meta SET value = 2 WHERE key = 'schema_version'")
        ledger.close()
        with pytest.raises(LedgerUnavailable, match="newer creditguard .schema 2.: upgrade creditguard here"):
            ledger.mark("a")
    assert "upgrade creditguard" in failure(path)


def test_a_migration_that_is_interrupted_is_done_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger_at(path) as ledger:
        ledger.mark("a")
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE extra (x)", "CREATE nonsense")))
    assert "syntax error" in failure(path)
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE extra (x)", "CREATE TABLE more (x)")))
    with ledger_at(path) as ledger:
        assert ledger.mark("a") == Mark()


def test_threads_that_migrate_at_once_do_it_once(path: Path) -> None:
    def work(_: int) -> None:
        with ledger_at(path) as ledger:
            ledger.mark("a")

    in_threads(8, work)
    with closing(sqlite3.connect(path)) as sql:
        found = dict(sql.execute("SELECT key, value FROM meta").fetchall())
        assert found == {"schema_version": 1, "level": len(MIGRATIONS)}


# What can be wrong with a file.


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "file" in failure(tmp_path / "file" / "ledger.db")
    assert failure(Path("/proc/creditguard/ledger.db")).startswith("/proc/creditguard")
    assert failure(Path("/sys/ledger.db")).startswith("/sys/ledger.db")


def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    assert "cannot be used: unable to open database file" in failure(tmp_path)


@pytest.mark.parametrize("garbage", [b"x" * 600, b"SQLite format 3\0", b"not a database\n" * 500, os.urandom(20000)])
def test_a_file_that_is_no_database(path: Path, garbage: bytes) -> None:
    path.write_bytes(garbage)
    assert "file is not a database" in failure(path)
    assert path.read_bytes() == garbage


def test_a_database_of_something_else(path: Path) -> None:
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("CREATE TABLE users (name)")
    assert "is a SQLite database of something else" in failure(path)
    with closing(sqlite3.connect(path)) as sql:
        assert sql.execute("SELECT name FROM sqlite_master").fetchall() == [("users",)]


@pytest.fixture
def used(path: Path) -> Path:
    """A ledger that was used, all of it in one file."""
    with ledger_at(path) as ledger:
        for number in range(300):
            ledger.reserve(hold(f"run-{number}", 1), OWNER, available=None, mark=None)
    return path


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (lambda good: bytes(byte ^ 0xFF for byte in good[:100]) + good[100:], "file is not a database"),
        (lambda good: good[:5000], "malformed"),
        (lambda good: good[:1024] + bytes(len(good) - 1024), "malformed"),
    ],
    ids=["its header was hit", "it was cut short", "it has holes"],
)
def test_a_file_that_was_damaged(used: Path, damaged: Callable[[bytes], bytes], said: str) -> None:
    used.write_bytes(damaged(used.read_bytes()))
    assert said in failure(used)


def test_a_ledger_that_was_broken_works_again_once_it_is_mended(used: Path) -> None:
    good = used.read_bytes()
    with ledger_at(used) as ledger:
        used.write_bytes(b"garbage" * 1000)
        with pytest.raises(LedgerUnavailable):
            ledger.mark("a")
        used.write_bytes(good)
        assert ledger.mark("a").started == 300


def as_nobody(path: Path) -> list[str]:
    """What the verbs say of a ledger to a user for whom file modes count: root's do not."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            ledger = SqliteLedger(str(path))
            verbs: list[Callable[[], object]] = [
                lambda: ledger.mark("a"),
                lambda: ledger.reserve(hold("two"), OWNER, available=None, mark=None),
                lambda: len(ledger.holds()),
            ]
            for verb in verbs:
                try:
                    said = repr(verb())
                except Exception as error:
                    said = f"{type(error).__name__} {error}"
                os.write(write, f"{said}\n".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        said = answers.read().splitlines()
    os.waitpid(child, 0)
    return said


@contextmanager
def open_to_all(path: Path) -> Iterator[None]:
    """Let others through to the path for a while: pytest's own directories are closed."""
    closed = [(parent, parent.stat().st_mode) for parent in path.parents if not parent.stat().st_mode & 0o001]
    for parent, mode in closed:
        parent.chmod(mode | 0o011)
    try:
        yield
    finally:
        for parent, mode in closed:
            parent.chmod(mode)


def test_a_directory_that_may_not_be_written(used: Path) -> None:
    used.chmod(0o666)
    with open_to_all(used):
        used.parent.chmod(0o555)  # for the tests' own user too
        said = as_nobody(used)
        missing = as_nobody(used.with_name("other.db"))
    for answer in (*said, *missing):
        assert answer.startswith("LedgerUnavailable "), answer
    assert "Permission denied" in missing[0]


def test_a_file_that_may_not_be_written(used: Path) -> None:
    with ledger_at(used) as ledger, open_to_all(used):
        ledger.mark("a")  # the sidecars exist
        for file in used.parent.iterdir():
            file.chmod(0o444)
        said = as_nobody(used)
        used.chmod(0)
        hidden = as_nobody(used)
    assert said[1].startswith("LedgerUnavailable "), said
    for answer in hidden:
        assert answer.startswith("LedgerUnavailable "), answer


def test_a_disk_that_is_full(used: Path) -> None:
    """A limit on the size of files stands in for it: what is written beyond fails likewise, in a process of its own."""
    code = f"""
import resource, signal
from creditguard.errors import LedgerUnavailable
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.rules.values import Hold
from creditguard.process.identity import this_process
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = SqliteLedger({str(used)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
said, number = [], 0
while len(said) < 3:
    try:
        ledger.reserve(Hold(f"more-{{number}}", "a", 1, "job"), this_process(), available=None, mark=None)
    except LedgerUnavailable as error:
        said.append(str(error))
    number += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ledger.reserve(Hold("after", "a", 1, "job"), this_process(), available=None, mark=None)
print(number, *said, sep="\\n")
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    number, *said = done.stdout.splitlines()
    assert all("disk I/O error" in message or "full" in message for message in said), said
    assert in_balance(f"sqlite:///{used}")
    with ledger_at(used) as ledger:
        assert ledger.mark("a").started == 300 + int(number) - 3 + 1


def test_a_database_that_may_not_grow(used: Path) -> None:
    with ledger_at(used) as ledger:
        with ledger._verb() as sql:
            sql.execute("PRAGMA max_page_count = 1").fetchall()
        with pytest.raises(LedgerUnavailable, match="database or disk is full"):
            for number in range(500):
                ledger.reserve(hold(f"more-{number}"), OWNER, available=None, mark=None)
        assert in_balance(f"sqlite:///{used}")
        assert ledger.reserve(hold("after"), OWNER, available=None, mark=None).admitted


# Waiting.


def test_a_process_that_is_stopped_in_the_middle_of_a_verb_is_not_waited_for_for_ever(
    used: Path, agents: Callable[..., Agent]
) -> None:
    agent = agents(f"sqlite:///{used}")
    agent.tell("transaction")
    assert agent.process.stdout
    assert agent.process.stdout.readline() == "null\n"
    agent.signal(signal.SIGSTOP)
    with ledger_at(used, wait=0.3) as ledger:
        start = time.monotonic()
        assert _try_to_reserve(ledger, 0) == f"{used} is busy: another process has kept it locked for 0.3 s"
        assert 0.2 < time.monotonic() - start < 5
        assert ledger.mark("a").started == 300, "reading is still possible"
        agent.kill()
        assert ledger.reserve(hold("after"), OWNER, available=None, mark=None).admitted


def _try_to_reserve(ledger: SqliteLedger, index: int) -> str:
    try:
        ledger.reserve(hold(f"try-{index}"), OWNER, available=None, mark=None)
    except LedgerUnavailable as error:
        return error.message
    return "no failure"


def test_whoever_ignores_the_lock_file_is_not_waited_for_for_ever_either(used: Path) -> None:
    with ledger_at(used, wait=0.3) as ledger, shell_at(used) as shell:
        ledger.mark("a")
        shell.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        assert _try_to_reserve(ledger, 0) == f"{used} is busy: another process has kept it locked for 0.3 s"
        assert 0.2 < time.monotonic() - start < 5
        shell.execute("ROLLBACK")
        assert _try_to_reserve(ledger, 1) == "no failure"


@pytest.mark.parametrize("how", ["no locks", "no file"])
def test_without_file_locks_the_ledger_is_still_right(path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    if how == "no locks":
        monkeypatch.setattr(filelock.fcntl, "lockf", refuse)
    else:
        path.with_name("ledger.db-lock").mkdir()

    def work(index: int) -> int:
        with ledger_at(path) as ledger:
            return sum(
                ledger.reserve(hold(f"{index}-{n}", 10), OWNER, available=200, mark=Mark()).admitted for n in range(10)
            )

    assert sum(in_threads(4, work)) == 20
    assert in_balance(f"sqlite:///{path}")


def test_an_interrupt_in_a_verb_leaves_neither_lock_nor_transaction(used: Path) -> None:
    with ledger_at(used) as ledger, ledger_at(used, wait=0.3) as other:
        with pytest.raises(KeyboardInterrupt), ledger._verb(writes=True) as sql:
            sql.execute("DELETE FROM holds")
            raise KeyboardInterrupt
        assert other.reserve(hold("after"), OWNER, available=None, mark=None).admitted
        assert other.mark("a").started == 301
        assert in_balance(f"sqlite:///{used}")


@pytest.mark.parametrize("lock", ["file", "database"])
def test_an_interrupt_of_who_waits_for_a_lock_leaves_it_to_others(
    used: Path, agents: Callable[..., Agent], lock: str
) -> None:
    """The lock comes free only after the interrupt, and must not be taken by who went away."""
    holder = agents(f"sqlite:///{used}")
    if lock == "file":
        holder.tell("transaction")
        assert holder.process.stdout
        assert holder.process.stdout.readline() == "null\n"
    with ledger_at(used) as ledger, shell_at(used) as shell:
        ledger.mark("a")
        if lock == "database":
            shell.execute("BEGIN IMMEDIATE")
        with struck_after(0.1, then=0.3, release=holder.kill if lock == "file" else shell.rollback):
            ledger.reserve(hold("never"), OWNER, available=None, mark=None)
        other = agents(f"sqlite:///{used}")
        assert other.ask("reserve", run="other", amount=1)
        assert _try_to_reserve(ledger, 0) == "no failure"
        assert "never" not in {live.hold.id for live in ledger.holds()}
    assert in_balance(f"sqlite:///{used}")


@pytest.mark.parametrize("step", ["BEGIN IMMEDIATE", "COMMIT"])
def test_an_interrupt_just_after_a_step_of_a_verb_leaves_neither_lock_nor_transaction(
    used: Path, agents: Callable[..., Agent], step: str
) -> None:
    with ledger_at(used) as ledger:
        ledger.mark("a")
        assert ledger._file
        sql = ledger._file.sql

        class Striking:
            """A connection that is interrupted as soon as the step is done."""

            def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
                cursor = sql.execute(statement, *values)
                if statement == step:
                    raise KeyboardInterrupt
                return cursor

            def __getattr__(self, name: str) -> Any:
                return getattr(sql, name)

        ledger._file.sql = Striking()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            ledger.reserve(hold("struck"), OWNER, available=None, mark=None)
        assert agents(f"sqlite:///{used}").ask("reserve", run="other", amount=1)
        assert _try_to_reserve(ledger, 0) == "no failure"
    assert in_balance(f"sqlite:///{used}")


def test_an_interrupt_at_any_opcode_of_a_verb_leaves_neither_lock_nor_transaction(path: Path) -> None:
    with ledger_at(path, wait=0.1) as other:
        for at in count(1):
            with ledger_at(path, wait=0.1) as ledger:
                ledger.mark("a")
                if not _struck(at, lambda: ledger.reserve(hold("struck", 0), OWNER, available=None, mark=None)):
                    break
                assert _try_to_reserve(other, at) == "no failure"
    assert at > 200
    assert in_balance(f"sqlite:///{path}")


def _struck(at: int, verb: Callable[[], object]) -> bool:
    """Ask it, and interrupt this thread at the opcode of that number; False if there are fewer."""
    opcodes = count(1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(("ledgers/sqlite.py", "contextlib.py")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(opcodes) == at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys._getframe().f_trace_opcodes = True  # CPython 3.12 gives them to nobody if no frame asked before
    sys.settrace(trace)
    try:
        verb()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def shell_at(path: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False))


@contextmanager
def struck_after(seconds: float, *, then: float, release: Callable[[], object]) -> Iterator[None]:
    """Interrupt this thread, and only later release what it waits for."""

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    freeing = threading.Timer(seconds + then, release)
    freeing.start()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        freeing.join()


# The clock.


def test_the_machines_sleep_costs_no_lease(path: Path) -> None:
    """The lease is measured on a clock that rests while the machine is suspended, the age of a reading on one that does not."""
    assert identity.RUNNING == time.CLOCK_MONOTONIC
    assert identity.ELAPSED == time.CLOCK_BOOTTIME
