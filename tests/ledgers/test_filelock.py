"""The lock beside a SQLite ledger: who gets it, how long it is waited for, and what is left of a wait that was in vain."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from creditguard.ledgers import filelock
from creditguard.ledgers.filelock import FileLock

# Python 3.12 and later warn of forks where there are threads. Here they are the point.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Callable[[], FileLock]]:
    made = []

    def make() -> FileLock:
        lock = FileLock()
        model = tmp_path / "ledger.db"
        model.touch(0o640)
        lock.open(tmp_path / "ledger.db-lock", like=model)
        made.append(lock)
        return lock

    yield make
    for each in made:
        each.close()


@contextmanager
def holder(lock: Callable[[], FileLock], seconds: float = 60.0) -> Iterator[int]:
    """Another process that has the lock, for so long or until it is killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lock().take(1)
            os.write(write, b".")
            time.sleep(seconds)
        finally:
            os._exit(0)
    try:
        os.read(read, 1)
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_whoever_waits_gets_it_when_it_is_given_up(lock: Callable[[], FileLock]) -> None:
    mine = lock()
    for _ in range(3):
        with holder(lock, seconds=0.1):
            mine.take(10)
            mine.release()


def test_whoever_waits_gets_it_when_its_holder_is_killed(lock: Callable[[], FileLock]) -> None:
    mine = lock()
    with holder(lock) as child, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mine.take, 10)
        time.sleep(0.1)
        assert not waiting.done()
        os.kill(child, signal.SIGKILL)
        waiting.result(5)


def test_a_process_that_waited_excludes_others(lock: Callable[[], FileLock]) -> None:
    """The lock that a thread took in its caller's place is the process's."""
    mine = lock()
    with holder(lock, seconds=0.1):
        mine.take(10)
    child = os.fork()
    if child == 0:
        try:
            lock().take(0.1)
            os._exit(0)
        except TimeoutError:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_waits_in_vain_are_bounded_and_leave_one_thread_until_the_lock_is_given_up(
    lock: Callable[[], FileLock],
) -> None:
    before = threads(), files()
    with holder(lock):
        for number in range(4):
            mine = lock()
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                mine.take(0.2)
            mine.close()
            assert 0.15 < time.monotonic() - start < 5
            assert threads() <= before[0] + 1, number
        assert len(filelock._stuck) == 1
    deadline = time.monotonic() + 5
    while threads() > before[0] or files() > before[1] or filelock._stuck:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    mine = lock()
    mine.take(0)
    mine.release()


def test_where_no_thread_is_to_be_had_it_is_waited_for_all_the_same(
    lock: Callable[[], FileLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    mine = lock()
    with holder(lock), pytest.raises(TimeoutError):
        mine.take(0.1)
    mine.take(10)


def test_a_child_of_one_that_waits_waits_by_itself(lock: Callable[[], FileLock]) -> None:
    mine = lock()
    with holder(lock, seconds=0.5), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(mine.take, 10)
        time.sleep(0.1)
        child = os.fork()
        if child == 0:
            try:
                mine.close()
                own = lock()
                own.take(10)
                own.release()
                own.close()
                os._exit(0)
            finally:
                os._exit(1)
        waiting.result(10)
        mine.release()
        assert os.waitpid(child, 0)[1] == 0


def test_the_file_has_the_mode_of_the_ledger(lock: Callable[[], FileLock], tmp_path: Path) -> None:
    lock()
    assert (tmp_path / "ledger.db-lock").stat().st_mode & 0o777 == 0o640
