"""Threads, forks, finalizers: whoever uses a ledger at awkward moments."""

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
from typing import Any

import pytest
from ledger_world import HERE, ROOT, AnyLedger, Backend, in_threads, new_owner

from creditguard.errors import LedgerUnavailable
from creditguard.ledgers import open_ledger
from creditguard.ledgers import turns as turns_module
from creditguard.ledgers.turns import Turn, Turns
from creditguard.process.identity import this_process
from creditguard.rules.values import Hold, Mark


def hold(run: str, amount: int = 1) -> Hold:
    return Hold(run, "a", amount, "job")


# Forks.


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
    assert ledger.sweep("a") == 1, "the child is dead and its hold free"
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
    """SQLite in a child takes locks that its parent has for its own, if it inherits an open file: see ledgers.turns."""
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


def test_a_child_forked_while_a_verb_takes_its_time_does_not_pretend(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_module, "_PATIENCE_TO_FORK", 0.1)
    ledger = backend.client()
    ledger.mark("a")
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with ledger._turns.take():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait()

    def work() -> bool:
        try:
            return ledger.mark("a") == Mark() and backend.kind == "postgres"
        except LedgerUnavailable as error:
            return "was in use when this process was forked" in str(error) and backend.kind == "sqlite"

    try:
        assert in_child(work)
    finally:
        leave.set()
        thread.join()
    assert ledger.mark("a") == Mark()


def test_threads_that_use_a_ledger_while_others_fork(ledger: AnyLedger) -> None:
    done = threading.Event()

    def use(index: int) -> int:
        number = 0
        while not done.is_set():
            ledger.reserve(hold(f"{index}-{number}"), this_process(), available=None, mark=None)
            ledger.release(f"{index}-{number}")
            number += 1
        return number

    def fork(_: int) -> int:
        try:
            for _ in range(15):
                assert in_child(lambda: ledger.mark("a").started >= 0)
                time.sleep(0.01)
        finally:
            done.set()
        return 1

    counts = in_threads(4, lambda index: use(index) if index else fork(index))
    mark = ledger.mark("a")
    assert mark == Mark(*[sum(counts) - 1] * 4)


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "ledger.mark('a')", "del ledger"])
def test_parent_and_child_both_end_in_silence(backend: Backend, ending: str) -> None:
    """No warning of a connection that was left open, from whichever of them."""
    code = f"""
import os, sys
from creditguard.ledgers import open_ledger
from creditguard.ledgers import turns as turns_module
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
    assert ledger.sweep("a") == 6


# Threads and finalizers.


def test_many_threads_take_turns_fairly(ledger: AnyLedger, backend: Backend) -> None:
    owner = new_owner()
    end = time.monotonic() + 1.0
    waits: list[float] = []

    def work(index: int) -> int:
        number = 0
        while (start := time.monotonic()) < end:
            ledger.reserve(hold(f"{index}-{number}"), owner, available=None, mark=None)
            waits.append(time.monotonic() - start)
            ledger.release(f"{index}-{number}")
            number += 1
        return number

    counts = in_threads(6, work)
    assert max(counts) <= 4 * min(counts), counts
    assert max(waits) < 1.0


class Cycle:
    """Refers to itself, so the garbage collector ends it, whenever it likes."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.me = self
        self.work = work

    def __del__(self) -> None:
        self.work()


def test_a_run_that_the_garbage_collector_ends_within_a_verb_is_settled_after_it(ledger: AnyLedger) -> None:
    owner = new_owner()
    for run in ("settled", "released"):
        ledger.reserve(hold(run), owner, available=None, mark=None)
    seen: list[object] = []

    def finalize() -> None:
        ledger.settle("settled", "a", {"job": "job"})
        seen.append(ledger.release("released"))
        try:
            ledger.mark("a")
        except LedgerUnavailable as error:
            seen.append(str(error))

    with ledger._turns.take():
        Cycle(finalize)
        gc.collect()
    assert seen == [
        False,
        f"asked by a finalizer or signal handler in the middle of another question (ledger {ledger.name})",
    ]
    assert ledger.mark("a") == Mark(admitted=2, released=2, started=2, ended=2)
    assert len(ledger.history()) == 1


class Connection:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_whoever_waits_behind_a_failure_shares_it() -> None:
    turns: Turns[Connection] = Turns("test", inheritable=False)
    attempts = 0

    def slow_failure(turn: Turn[Connection]) -> None:
        nonlocal attempts
        attempts += 1
        time.sleep(0.2)
        raise turn.failed(LedgerUnavailable("stuck", "test"))

    def work(_: int) -> str:
        try:
            with turns.take() as turn:
                slow_failure(turn)
        except LedgerUnavailable as error:
            return str(error)
        return "no failure"

    assert set(in_threads(20, work)) == {"stuck (ledger test)"}
    assert attempts <= 2, "those who came while the first one waited did not wait again"
    with turns.take():
        pass  # whoever comes later tries again


def test_a_failure_is_remembered_for_as_long_as_it_cools_down() -> None:
    turns: Turns[Connection] = Turns("test", inheritable=False)
    with pytest.raises(LedgerUnavailable), turns.take() as turn:
        raise turn.failed(LedgerUnavailable("down", "test"), cool_down=0.2)
    with pytest.raises(LedgerUnavailable, match="down"), turns.take():
        pass
    time.sleep(0.25)
    with turns.take():
        pass


def test_other_errors_are_not_shared() -> None:
    turns: Turns[Connection] = Turns("test", inheritable=False)

    def work(_: int) -> str:
        try:
            with turns.take():
                time.sleep(0.05)
                raise LedgerUnavailable(str(threading.get_ident()), "test")
        except LedgerUnavailable as error:
            return error.message

    assert len(set(in_threads(4, work))) == 4


def test_closing_closes_this_processes_connection() -> None:
    turns: Turns[Connection] = Turns("test", inheritable=False)
    for error in (KeyboardInterrupt(), ValueError()):
        with pytest.raises(type(error)), turns.take():
            raise error
    with turns.take() as turn:
        turn.connection = connection = Connection()
    turns.close()
    assert connection.closed
