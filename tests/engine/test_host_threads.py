"""The host's worker threads are the host's; and where the system has no thread to give, the next guard tries again."""

from __future__ import annotations

import _thread
import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import anyio
import pytest
from attack_world import Pool, enter_and_leave, in_thread, until

from creditguard import LedgerUnavailable
from creditguard.engine import engine as engine_module
from creditguard.engine.engine import Engine, engine
from creditguard.engine.service import Service

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def fresh_engine(monkeypatch):
    """An engine whose threads have not started."""
    monkeypatch.setitem(engine_module._engines, os.getpid(), Engine())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_busy_worker_threads_of_the_host_stop_no_admission(sqlite_world, backend):
    async def main():
        over = threading.Event()
        try:
            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(anyio.to_thread.run_sync, over.wait)
                await anyio.sleep(0.1)
                assert anyio.to_thread.current_default_thread_limiter().available_tokens == 0
                with anyio.fail_after(20):
                    async with sqlite_world.guard() as run:
                        pass
                over.set()
        finally:
            over.set()
        return run.report.outcome

    assert anyio.run(main, backend=backend) == "succeeded"


def test_worker_threads_that_call_back_into_async_guards(sqlite_world):
    async def guarded():
        async with sqlite_world.guard() as run:
            pass
        return run.report.outcome

    async def main():
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(anyio.to_thread.run_sync, lambda: outcomes.append(anyio.from_thread.run(guarded)))

    outcomes = []
    anyio.run(main)
    assert outcomes == ["succeeded"] * 40
    assert sqlite_world.wrong() is None


@pytest.mark.usefixtures("fresh_engine")
@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_thread_that_cannot_be_started_is_an_error_by_policy_and_the_next_guard_tries_again(
    sqlite_world, monkeypatch, fails_at
):
    engine().warm.add("sqlite")  # nothing is left to import in a thread, which would be asked for first
    start, calls = _thread.start_new_thread, []

    def start_new_thread(*args):
        calls.append(args)
        if len(calls) == fails_at:
            raise RuntimeError("can't start new thread")
        return start(*args)

    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    with pytest.raises(LedgerUnavailable, match="start new thread"), sqlite_world.guard():
        pytest.fail("nothing watches over the hold")
    with sqlite_world.guard() as run:
        pass
    assert run.report.outcome == "succeeded"
    monkeypatch.undo()
    assert sqlite_world.wrong() is None


@pytest.mark.usefixtures("fresh_engine")
def test_in_warn_mode_the_job_goes_on_unguarded_and_is_reported(sqlite_world, monkeypatch):
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: (_ for _ in ()).throw(RuntimeError("none")))
    with sqlite_world.guard(on_unreadable="warn") as run:
        run.record(3)
    monkeypatch.undo()
    assert run.report.credits_recorded == 3
    assert [name for name, _ in sqlite_world.log.lines] == ["creditguard.ledger_unavailable", "creditguard.finished"]


@pytest.mark.usefixtures("fresh_engine")
def test_with_a_single_thread_everything_goes_on(sqlite_world, monkeypatch):
    """The timer, and one service thread: all that the system gives."""
    start, started = _thread.start_new_thread, []

    def start_new_thread(function, args):
        if getattr(function, "__self__", None) in (engine().timer, engine().service):
            if len(started) >= 2:
                raise RuntimeError("can't start new thread")
            started.append(function)
        return start(function, args)

    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    for _ in range(5):
        with sqlite_world.guard() as run, sqlite_world.guard("inner"):
            pass
        assert run.report.outcome == "succeeded"
    monkeypatch.undo()
    assert len(started) == 2
    assert sqlite_world.wrong() is None


@pytest.mark.usefixtures("fresh_engine")
def test_threads_that_have_not_come_to_run_yet_are_not_started_again(sqlite_world, monkeypatch):
    """A second one may be more than the system gives."""
    start, gate, started = _thread.start_new_thread, threading.Event(), []

    def start_new_thread(function, args):
        started.append(function)
        return start(lambda: (gate.wait(60), function(*args)), ())

    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    engine().start()
    engine().start()
    monkeypatch.undo()
    gate.set()
    assert len(started) == 2
    with sqlite_world.guard():
        pass
    assert sqlite_world.wrong() is None


@pytest.mark.usefixtures("fresh_engine")
def test_threads_that_were_not_to_be_had_for_a_moment_are_had_later(sqlite_world, monkeypatch):
    """All that there are hang by then, and it is not their return that the others wait for."""
    engine().warm |= {"sqlite", "none"}
    engine().start()
    assert until(lambda: engine().service._idle)
    start, gate, lacking = _thread.start_new_thread, threading.Event(), [True]

    def start_new_thread(function, args):
        if lacking and getattr(function, "__self__", None) is engine().service:
            raise RuntimeError("can't start new thread")
        return start(function, args)

    class Hanging(Pool):
        def read(self, timeout):
            lacking.clear()  # there are threads again
            gate.wait(30)
            return super().read(timeout)

    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    hanging = Hanging()
    first = in_thread(enter_and_leave, sqlite_world.guard(source=hanging))
    assert until(lambda: engine().readings_due)
    second = in_thread(enter_and_leave, sqlite_world.guard(ledger="none", source=Pool()))
    assert second(3) == "succeeded"
    gate.set()
    assert first() == "succeeded"
    assert sqlite_world.wrong() is None


def test_an_interrupt_while_a_thread_is_started_anew_is_not_the_last_try(monkeypatch):
    """A thread was not to be had once. Who tries again is interrupted, and the next one tries again, too."""
    service, start = Service(), _thread.start_new_thread
    answers = [RuntimeError("can't start new thread"), KeyboardInterrupt()]

    def start_new_thread(function, args):
        if answers:
            raise answers.pop(0)
        return start(function, args)

    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    service._start_another()
    made = []
    with pytest.raises(KeyboardInterrupt):
        service.put(lambda: made.append(1))
    service.put(lambda: made.append(2))
    assert until(lambda: made == [1, 2])


LIMITED = """
    import os, resource, sys
    sys.path[:0] = [{here!r}]
    from attack_world import World
    from creditguard import LedgerUnavailable

    with World("sqlite:///" + sys.argv[1] + ".root").guard():
        pass  # what is loaded at first use must be loaded while it may be read
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.setgid(65534)
    os.setuid(54321)
    world = World("sqlite:///" + sys.argv[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    try:
        with world.guard():
            sys.exit("it was admitted")
    except LedgerUnavailable as error:
        print(error)
    with world.guard(on_unreadable="warn") as run:
        pass
    print(run.report.outcome)
    resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    with world.guard() as run:
        assert world.holds() == [run.id]
    print(run.report.outcome, world.holds())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, to whom the limit applies")
def test_a_real_limit_on_threads():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # TMPDIR may be closed to others
        Path(folder).chmod(0o777)
        _run_limited(folder)


def _run_limited(folder):
    code = textwrap.dedent(LIMITED).format(here=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code, f"{folder}/ledger.db"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": folder},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "can't start new thread" in lines[0]
    assert lines[1:] == ["succeeded", "succeeded []"]


def test_a_service_thread_that_dies_is_not_counted_on(sqlite_world):
    """A log filter of the host's that raises in a thread of ours must not take the thread with it."""

    def broken(record):
        raise SystemExit

    logger = logging.getLogger("creditguard")
    logger.addFilter(broken)
    try:
        for _ in range(40):
            made = threading.Event()
            engine().service.put(lambda made=made: [made.set(), 1 / 0])
            assert made.wait(10), "no thread is left"
    finally:
        logger.removeFilter(broken)
    assert sqlite_world.wrong() is None
    assert until(lambda: len(engine().service._threads) < 10)
    idents = {thread.ident for thread in threading.enumerate()} | set(sys._current_frames())
    assert engine().service._threads <= idents


def test_threads_that_have_ended_are_not_listed_as_alive():
    service, met, go_on = Service(), threading.Barrier(11), threading.Event()

    def meet():
        mine.add(threading.get_ident())
        met.wait(20)
        go_on.wait(20)

    mine: set[int] = set()
    service.start()
    for _ in range(10):
        service.put(meet)
    met.wait(20)
    assert mine <= {thread.ident for thread in threading.enumerate()}
    go_on.set()
    assert until(lambda: len(mine & {thread.ident for thread in threading.enumerate()}) <= 2), "the spare ones"


def test_a_closed_loop_is_not_kept_alive(sqlite_world):
    """One loop a run, as `asyncio.run` has it, thousands of times."""
    import gc
    import weakref

    async def main():
        async with sqlite_world.guard():
            return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(main()) for _ in range(5)]
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5
