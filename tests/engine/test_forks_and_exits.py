"""Forks at any moment, and interpreters that end with runs open."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest
from attack_world import World

from creditguard.engine.engine import engine

pytestmark = [
    pytest.mark.timeout(300),
    # Since 3.12 a fork beside threads is warned of: it is what is tried here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]


FILES = Path("/proc/self/fd")


def in_child(work):
    """Fork; what the child returns is its exit code, 99 for an exception. Returns a function that waits for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        code = 99
        try:
            faulthandler.dump_traceback_later(20, exit=True)
            code = work()
        finally:
            os._exit(code)

    def wait(within=30):
        ends = time.monotonic() + within
        while time.monotonic() < ends:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, 9)
        os.waitpid(child, 0)
        return "hangs"

    return wait


def open_files_of(path):
    return [link for link in FILES.iterdir() if link.exists() and str(link.readlink()).startswith(path)]


@pytest.mark.skipif(not FILES.is_dir(), reason="looks into /proc")
def test_forks_in_the_middle_of_other_threads_guards(sqlite_world):
    """The child starts with nothing: no thread, no run, no open ledger; and its own guards work."""
    path = sqlite_world.url.removeprefix("sqlite:///")
    over = threading.Event()
    with sqlite_world.guard():
        pass  # Python's: a child hangs where it imports what another thread was importing at the fork

    def busy():
        while not over.is_set():
            with sqlite_world.guard("busy"):
                pass

    threads = [threading.Thread(target=busy, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    mine = engine()

    def child():
        if open_files_of(path):
            return 2
        if engine() is mine or engine().runs:
            return 3
        with sqlite_world.guard("child") as run:
            if run.id not in sqlite_world.holds():
                return 4
        return 0 if run.report.outcome == "succeeded" else 5

    try:
        sqlite_world.ledger.close()
        codes = [in_child(child)() for _ in range(20)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 20
    assert sqlite_world.wrong() is None


def test_a_child_that_leaves_its_parents_block_leaves_the_run_alone(world):
    """By the end of the block, by an exception, by a generator that is closed: the run is the parent's, and nobody waits for it."""

    @world.guard("generator")
    def job():
        yield 1

    items = job()
    next(items)
    entry = world.guard()._entry()
    with entry as run:

        def child():
            begun = time.monotonic()
            items.close()
            entry.__exit__(None, None, None)
            entry.__exit__(KeyError, KeyError(), None)
            if time.monotonic() - begun > 1 or run._life.report is not None:
                return 8
            with world.guard("child") as mine:
                pass
            return 0 if mine.report.outcome == "succeeded" else 9

        assert in_child(child)() == 0
        if world.ledger:
            assert len(world.holds()) == 2
        assert not run._life.over
    assert run.report.outcome == "succeeded"
    items.close()
    assert world.wrong() is None


def test_two_threads_that_fork_at_once(sqlite_world):
    """Each of them finds the connection closed, and it stays so until both children are made."""
    path = sqlite_world.url.removeprefix("sqlite:///")
    barrier, codes = threading.Barrier(3), []
    over = threading.Event()

    def busy():
        barrier.wait(30)
        while not over.is_set():
            with sqlite_world.guard("busy"):
                pass

    def fork():
        barrier.wait(30)
        codes.extend(in_child(lambda: len(open_files_of(path)))() for _ in range(15))

    threads = [threading.Thread(target=work, daemon=True) for work in (busy, fork, fork)]
    with sqlite_world.guard():
        pass
    sqlite_world.ledger.close()
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join(60)
    over.set()
    threads[0].join(30)
    assert codes == [0] * 30
    assert sqlite_world.wrong() is None


def guarded_in_a_pool(url):
    from attack_world import World

    world = World(url)
    with world.guard() as run:
        holds = world.holds()
    return run.report.outcome, run.id in holds


def test_a_pool_of_forked_workers(sqlite_world):
    context = multiprocessing.get_context("fork")
    with sqlite_world.guard() as run:
        with context.Pool(4) as pool:
            outcomes = pool.map(guarded_in_a_pool, [sqlite_world.url] * 40, chunksize=1)
        assert sqlite_world.holds() == [run.id]
    assert outcomes == [("succeeded", True)] * 40
    assert sqlite_world.wrong() is None


def end_with_runs_open(url, entered, go):
    """The main thread's run ends while the ledger is busy, a daemon's thread's never, another thread's after the main thread."""
    world = World(url)

    def stay(name, leave):
        with world.guard(name):
            entered.put(name)
            leave()

    threading.Thread(target=stay, args=("daemon", lambda: time.sleep(100)), daemon=True).start()
    threading.Thread(target=stay, args=("thread", threading.main_thread().join), daemon=False).start()
    stay("main", go.wait)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_worker_of_multiprocessing_that_ends_leaves_nothing_behind(sqlite_world, method, monkeypatch):
    """It ends without exit handlers, unless it was spawned."""
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # the path of forkserver's socket must be short
    context = multiprocessing.get_context(method)
    with sqlite_world.guard("warm"):
        pass
    entered, go = context.SimpleQueue(), context.Event()
    worker = context.Process(target=end_with_runs_open, args=(sqlite_world.url, entered, go))
    worker.start()
    assert {entered.get() for _ in range(3)} == {"daemon", "thread", "main"}
    busy = sqlite3.connect(sqlite_world.url.removeprefix("sqlite:///"), isolation_level=None)
    busy.execute("BEGIN IMMEDIATE")
    go.set()
    worker.join(1.5)
    busy.execute("ROLLBACK")
    busy.close()
    worker.join(30)
    assert worker.exitcode == 0
    outcomes = {report["job"]: report["outcome"] for report in sqlite_world.ledger.history()}
    assert outcomes == {"warm": "succeeded", "main": "succeeded", "thread": "succeeded", "daemon": "cancelled"}
    assert sqlite_world.wrong() is None


def end_with_a_ledger_that_hangs(url):
    world = World(url)
    world.ledger.settle = lambda *_: threading.Event().wait()
    with world.guard(ledger=world.ledger):
        pass


def test_a_worker_of_multiprocessing_whose_ledger_hangs_waits_for_it_once(sqlite_world):
    """A spawned one has finalizers and exit handlers."""
    worker = multiprocessing.get_context("spawn").Process(target=end_with_a_ledger_that_hangs, args=(sqlite_world.url,))
    begun = time.monotonic()
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert time.monotonic() - begun < 12


# Interpreters that end

PRELUDE = """
    import asyncio, atexit, gc, os, sys, threading, time
    sys.path[:0] = [{here!r}]
    from attack_world import World, Pool
    from creditguard import LedgerUnavailable
    from creditguard.engine.engine import engine
    world = World("sqlite:///" + sys.argv[1])
    def enter(guard):
        try:
            with guard:
                sys.exit("it was admitted")
        except LedgerUnavailable as error:
            print(error, flush=True)
    world.log.emit = lambda event: print(event.name.removeprefix("creditguard."), event.fields.get("outcome", ""), flush=True)
"""

ENDINGS = {
    "a run that is open in a daemon thread": """
        def stay():
            with world.guard():
                time.sleep(100)
        threading.Thread(target=stay, daemon=True).start()
        while not world.holds():
            time.sleep(0.001)
    """,
    "a generator that nobody closes": """
        @world.guard()
        def job():
            yield 1
            yield 2
        items = job()
        next(items)
    """,
    "a block that is entered and never left": """
        open_run = world.guard().__enter__()
    """,
    "a task in a loop that is closed": """
        async def stay():
            async with world.guard():
                await asyncio.sleep(100)
        loop = asyncio.new_event_loop()
        task = loop.create_task(stay())
        while not world.holds():
            loop.run_until_complete(asyncio.sleep(0.001))
        task._log_destroy_pending = False
        loop.close()
    """,
    "sys.exit in a block": """
        with world.guard():
            sys.exit(0)
    """,
    "a run that is being admitted": """
        world.pool.delay = 3.0
        threading.Thread(target=enter, args=(world.guard(),), daemon=True).start()
        while not world.pool.reads:
            time.sleep(0.001)
    """,
    "a source that hangs": """
        world.pool.read = lambda timeout: time.sleep(1000)
        threading.Thread(target=enter, args=(world.guard(),), daemon=True).start()
        time.sleep(0.2)
    """,
}


def run_to_its_end(tmp_path, body, within):
    code = textwrap.dedent(PRELUDE).format(here=str(Path(__file__).parent)) + textwrap.dedent(body)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "ledger.db"], capture_output=True, text=True, timeout=60
    )
    took = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    assert took < within, done.stderr
    return done


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interpreter_that_ends_with_a_run_open(tmp_path, ending):
    from creditguard.ledgers import open_ledger

    done = run_to_its_end(tmp_path, ENDINGS[ending], 12)
    assert done.stderr == ""
    if "thread" in ending or "generator" in ending or "block" in ending or "task" in ending:
        outcome = "succeeded" if "sys.exit" in ending else "cancelled"
        assert done.stdout.split() == ["admitted", "finished", outcome]
    else:
        assert "admitted" not in done.stdout
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    assert [live.hold.id for live in ledger.holds()] == []
    ledger.close()


def test_an_interpreter_that_ends_while_a_run_waits_for_its_account_to_settle(tmp_path):
    from creditguard.ledgers import open_ledger

    done = run_to_its_end(
        tmp_path,
        """
        def job():
            with world.guard(settle=600):
                pass
        threading.Thread(target=job, daemon=True).start()
        while not any(run.over for run in engine().runs.values()):
            time.sleep(0.001)
        """,
        12,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["admitted", "finished", "succeeded"]
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    assert ledger.holds() == []
    ledger.close()


def test_what_is_owed_is_tried_once_more_at_the_end(tmp_path):
    """The ledger takes releases again, a long time before the next try would be due."""
    from creditguard.ledgers import open_ledger

    run_to_its_end(
        tmp_path,
        """
        settle, broken = world.ledger.settle, [True]
        def failing(*args):
            if broken:
                raise OSError
            return settle(*args)
        world.ledger.settle = failing
        with world.guard(ledger=world.ledger):
            pass
        leases = [each for each in engine()._leases.values() if each.owes][0]
        leases._pause = leases._retry = 1000.0
        time.sleep(1.5)
        assert leases.owes and leases._due > time.monotonic() + 100, leases._due
        broken.clear()
        """,
        12,
    )
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    assert [live.hold.id for live in ledger.holds()] == []
    ledger.close()


def test_a_ledger_that_hangs_ends_with_the_interpreter(tmp_path):
    run_to_its_end(
        tmp_path,
        """
        hang = threading.Event()
        world.ledger.settle = lambda *args: hang.wait()
        os.environ["CREDITGUARD_TIMEOUT"] = "1"
        with world.guard(ledger=world.ledger):
            pass
        """,
        15,
    )


def test_a_finalizer_at_the_very_end_that_enters_a_guard_waits_for_nobody(tmp_path):
    """When daemon threads do not run any more."""
    done = run_to_its_end(
        tmp_path,
        """
        class Last:
            def __init__(self):
                self.guard, self.write, self.time = world.guard(), os.write, time.monotonic
            def __del__(self):
                begun = self.time()
                try:
                    with self.guard:
                        pass
                except Exception as error:
                    self.write(1, type(error).__name__.encode())
                self.write(1, b" quickly" if self.time() - begun < 1 else b" late")
        last = Last()
        with last.guard:
            pass
        """,
        12,
    )
    assert done.stdout.split()[-2:] == ["LedgerUnavailable", "quickly"]


def test_guards_in_later_exit_handlers_work(tmp_path):
    done = run_to_its_end(
        tmp_path,
        """
        os.environ["CREDITGUARD_TIMEOUT"] = "1"
        def last():
            with world.guard() as run:
                pass
            print(run.report.outcome, world.holds())
        import creditguard.engine.engine as module
        atexit.unregister(module._at_exit)
        atexit.register(last)
        atexit.register(module._at_exit)
        with world.guard():
            pass
        """,
        12,
    )
    assert done.stdout.splitlines()[-1] == "succeeded []"


def test_a_fork_finds_fifty_ledgers_closed(sqlite_world, tmp_path):
    """As many as have been used, and more than there may be service threads."""
    worlds = [World(f"sqlite:///{tmp_path}/ledger{number}.db") for number in range(50)]
    for world in worlds:
        with world.guard():
            pass
        world.ledger.close()
    assert len(open_files_of(str(tmp_path))) >= 50
    mine = engine()  # kept, as a thread's frames keep it: else the child closes what it has inherited
    assert in_child(lambda: len(open_files_of(str(tmp_path))) or mine is engine())() == 0
    for world in worlds:
        with world.guard() as run:
            pass
        assert run.report.outcome == "succeeded"
        world.close()
