"""A ledger in a process that forks: who has which connection, and what a child must not pretend."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from ledger_world import HERE, ROOT, AnyLedger, Backend, in_threads

from creditguard.errors import LedgerUnavailable
from creditguard.ledgers import open_ledger
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.process.identity import this_process
from creditguard.rules.values import Hold, Mark

# Python 3.12 and later warn of forks where there are threads. Here they are the point.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def hold(run: str, amount: int = 1) -> Hold:
    return Hold(run, "a", amount, "job")


def in_child(work: Callable[[], bool]) -> bool:
    """What `work` answers in a forked child, which then ends without further ado."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def test_a_forked_child_has_a_connection_of_its_own(ledger: AnyLedger) -> None:
    ledger.reserve(hold("parent"), this_process(), available=None, mark=None)

    def work() -> bool:
        me = this_process()
        granted = ledger.reserve(hold("child"), me, available=None, mark=None).admitted
        lost = ledger.renew(me, ["child", "parent"])
        ledger.close()
        gc.collect()
        return granted and lost == {"parent"}

    assert in_child(work)
    assert ledger.mark("a") == Mark(admitted=2, started=2), "the parent's connection still works"
    assert len(ledger.sweep("a")) == 1, "the child is dead and its hold free"
    assert ledger.renew(this_process(), ["parent"]) == frozenset()


def test_a_child_that_drops_the_ledger_leaves_the_parents_connection_alone(backend: Backend) -> None:
    ledger = backend.make()
    ledger.mark("a")

    def work() -> bool:
        nonlocal ledger
        del ledger
        gc.collect()
        return True

    assert in_child(work)
    ledger.reserve(hold("one"), this_process(), available=None, mark=None)
    assert ledger.mark("a").started == 1
    ledger.close()


@pytest.mark.parametrize("hooks", [True, False], ids=["os.fork", "a fork that Python is not told of"])
def test_what_a_child_holds_is_seen_by_all_though_its_parent_and_others_come_and_go(
    ledger: AnyLedger, backend: Backend, hooks: bool
) -> None:
    """SQLite in a child takes locks that its parent has for its own, if it inherits an open file: see ledgers.sqlite_file."""
    ledger.mark("a")
    to_child, from_child = os.pipe(), os.pipe()
    child = os.fork() if hooks else ctypes.PyDLL(None).fork()
    if child == 0:
        try:
            me = this_process()
            ledger.reserve(hold("before"), me, available=None, mark=None)
            os.write(from_child[1], b".")
            os.read(to_child[0], 1)
            ledger.reserve(hold("after"), me, available=None, mark=None)
            os.write(from_child[1], b".")
            os.read(to_child[0], 1)
        finally:
            os._exit(0)
    try:
        os.read(from_child[0], 1)
        ledger.close()
        other = [sys.executable, str(HERE / "agent.py"), backend.url]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(other, input='["sweep", {}]\n["close", {}]\n', text=True, env=environment, check=True)
        os.write(to_child[1], b".")
        os.read(from_child[0], 1)
        assert [live.hold.id for live in ledger.holds()] == ["before", "after"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for end in (*to_child, *from_child):
            os.close(end)


def test_a_child_forked_in_the_middle_of_a_verb_does_not_pretend(backend: Backend) -> None:
    """What SQLite has open then can be neither used nor closed there, nor opened a second time by another object or name."""
    ledger = backend.client()
    ledger.mark("a")
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        if isinstance(ledger, SqliteLedger):
            with ledger._verb():
                entered.set()
                leave.wait(10)
        else:
            ledger._do(lambda _: entered.set() or leave.wait(10))

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait()
    if backend.kind == "sqlite":
        link = backend.url.removeprefix("sqlite:///").replace("ledger.db", "link.db")
        Path(link).symlink_to("ledger.db")
        others = [backend.make(), SqliteLedger(link)]
    else:
        others = [backend.make()]

    def work() -> bool:
        answers: list[object] = []
        for each in (ledger, ledger, *others):
            try:
                answers.append(each.mark("a"))
            except LedgerUnavailable as error:
                answers.append("was in use when this process was forked" in str(error))
        return answers == ([True] * 4 if backend.kind == "sqlite" else [Mark()] * 3)

    try:
        assert in_child(work)
        assert in_child(lambda: in_child(work)), "a grandchild has inherited it too"
    finally:
        leave.set()
        thread.join()
    assert ledger.mark("a") == Mark()
    assert in_child(lambda: ledger.mark("a") == Mark()), "between two verbs there is nothing in the way"


def test_what_another_thread_does_is_whole_though_this_one_forks(ledger: AnyLedger) -> None:
    """As the engine does it: the connection is closed between two verbs, before the fork."""
    done, turn = threading.Event(), threading.Lock()

    def use() -> int:
        number = 0
        while not done.is_set():
            with turn:
                ledger.reserve(hold(str(number)), this_process(), available=None, mark=None)
            with turn:
                ledger.release(str(number))
            number += 1
            time.sleep(0.001)  # else the lock is hardly ever to be had for the other
        return number

    def fork() -> int:
        try:
            for _ in range(30):
                with turn:
                    ledger.close()
                    assert in_child(lambda: ledger.mark("a").started >= 0)
        finally:
            done.set()
        return 0

    count, _ = in_threads(2, lambda index: fork() if index else use())
    assert ledger.mark("a") == Mark(*[count] * 4)


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "ledger.mark('a')", "del ledger"])
def test_parent_and_child_both_end_in_silence(backend: Backend, ending: str) -> None:
    """No warning of a connection that was left open, from whichever of them."""
    code = f"""
import os, sys
from creditguard.ledgers import open_ledger

ledger = open_ledger({backend.url!r})
ledger.mark("a")
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    ledger.mark("a")
else:
    {ending}
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def hold_in_pool(url: str, run: str) -> str:
    ledger = open_ledger(url)
    try:
        ledger.reserve(hold(run), this_process(), available=None, mark=None)
        return this_process().id
    finally:
        ledger.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_a_pool_are_owners(ledger: AnyLedger, backend: Backend, method: str) -> None:
    ledger.mark("a")
    with get_context(method).Pool(2) as pool:
        owners = set(pool.starmap(hold_in_pool, [(backend.url, str(n)) for n in range(6)], chunksize=1))
        assert ledger.mark("a").started == 6
        pool.close()
        pool.join()
    assert len(owners) in (1, 2)
    assert len(ledger.sweep("a")) == 6
