"""SIGTERM while a guard is open in a task, without the engine around it: what `creditguard.airflow.kills` does."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest


@pytest.fixture
def airflows_handler(airflow, gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """As in a task of Airflow 3, whose handler calls `on_kill` and returns; what it was called with."""
    called: list[int] = []
    task = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", try_number=1, map_index=-1)
    monkeypatch.setattr("creditguard.airflow.host.get_current_context", lambda: {"ti": task})
    before = signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    yield called
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


def test_settles_calls_airflows_handler_and_ends_the_job(airflows_handler, holds, events) -> None:
    from creditguard.airflow import guard

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, guard("job", budget=3, conn_id="apimall_default") as run:
        assert signal.getsignal(signal.SIGTERM) is not handler
        run.record(2)
        terminate()
    assert ended.value.code == 128 + signal.SIGTERM
    assert airflows_handler == [signal.SIGTERM]
    assert (run.report.outcome, run.report.credits_recorded, run.report.balance_after) == ("cancelled", 2, 100)
    assert [event["event"] for event in events] == ["admitted", "finished"]
    assert holds() == []
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_gateway_that_hangs_does_not_keep_the_hold(airflows_handler, gateway, holds) -> None:
    from creditguard.airflow import guard

    with pytest.raises(SystemExit), guard("job", budget=3, conn_id="apimall_default", settle=60) as run:
        gateway.fault(delay=4)
        began = time.monotonic()
        terminate()
    took = time.monotonic() - began
    time.sleep(max(began + 4.5 - time.monotonic(), 0))  # until the gateway has come to, and is in nobody else's way
    assert took < 3.5
    assert run.report.balance_after is None
    assert holds() == []


def test_a_lock_of_the_log_that_the_job_holds_is_no_deadlock(airflows_handler, holds) -> None:
    from creditguard.airflow import guard

    seen, lock, finished = [], threading.Lock(), threading.Event()

    class Log:
        """As every log of Python is: one writer at a time, and the signal comes while the job is the one."""

        def emit(self, event) -> None:
            with lock:
                seen.append(event.name)
            if len(seen) == 2:
                finished.set()

    with pytest.raises(SystemExit), guard("job", budget=3, conn_id="apimall_default", sink=Log()) as run, lock:
        began = time.monotonic()
        terminate()
    assert time.monotonic() - began < 3.5
    assert run.report.outcome == "cancelled"
    assert holds() == []
    assert finished.wait(10)  # it goes out when the job has let go of the log
    assert seen == ["creditguard.admitted", "creditguard.finished"]


def test_nested_runs_and_those_of_threads_are_settled(airflows_handler, holds) -> None:
    from creditguard.airflow import guard

    runs, entered, leave = [], threading.Event(), threading.Event()

    def elsewhere() -> None:
        with guard("thread", budget=1, conn_id="apimall_default") as run:
            runs.append(run)
            entered.set()
            leave.wait(20)

    one = guard("nested", budget=2, conn_id="apimall_default")
    thread = threading.Thread(target=elsewhere)
    with pytest.raises(SystemExit), one as outer, one as inner:
        runs += [outer, inner]
        thread.start()
        entered.wait(20)
        terminate()
    leave.set()
    thread.join()
    assert [run.report.outcome for run in runs] == ["cancelled"] * 3
    assert holds() == []


def test_asynchronous_runs_are_settled(airflows_handler, holds, events) -> None:
    from creditguard.airflow import guard

    async def job() -> None:
        async with guard("job", budget=3, conn_id="apimall_default"):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)

    with pytest.raises(SystemExit):
        asyncio.run(job())
    assert [(event["event"], event.get("outcome")) for event in events] == [
        ("admitted", None),
        ("finished", "cancelled"),
    ]
    assert holds() == []


def test_a_kill_during_the_admission_leaves_no_hold(airflows_handler, gateway, holds) -> None:
    from creditguard.airflow import guard

    gateway.fault(delay=1, times=1)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(SystemExit), guard("job", budget=3, conn_id="apimall_default"):
        pytest.fail("it was killed before")
    time.sleep(1)
    assert holds() == []


def test_a_forked_child_settles_nothing_of_its_parents(airflows_handler, holds) -> None:
    from creditguard.airflow import guard

    with guard("job", budget=3, conn_id="apimall_default") as run:
        child = os.fork()
        if not child:
            time.sleep(0.5)
            os._exit(7)
        os.kill(child, signal.SIGTERM)  # which Airflow's handler passes over, in a child
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert len(holds()) == 1
    assert run.report.outcome == "succeeded"


def test_a_kill_before_the_engine_knows_of_the_run_ends_the_job(airflows_handler, holds, monkeypatch) -> None:
    from creditguard.airflow import guard
    from creditguard.engine.lifecycle import Lifecycle

    hand_over = Lifecycle.hand_over

    def killed(self, *args, **options) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return hand_over(self, *args, **options)

    monkeypatch.setattr(Lifecycle, "hand_over", killed)
    with pytest.raises(SystemExit), guard("job", budget=3, conn_id="apimall_default"):
        pytest.fail("it was killed before")
    assert holds() == []


def test_a_run_that_ends_leaves_the_handler_to_the_one_that_begins(airflows_handler, events, monkeypatch) -> None:
    """Two tasks of an event loop: the engine knows of the one no more, and of the other not yet."""
    from creditguard.airflow import guard
    from creditguard.airflow.host import TaskHost

    begun, ended = [], TaskHost.ended

    def begins_meanwhile(self, run) -> None:
        if not begun:
            begun.append(guard("second", budget=3, conn_id="apimall_default")._run())
            self.opening(begun[0])
        ended(self, run)

    monkeypatch.setattr(TaskHost, "ended", begins_meanwhile)
    with guard("first", budget=3, conn_id="apimall_default"):
        pass
    with pytest.raises(SystemExit):
        terminate()
    begun[0]._host.ended(begun[0])


def test_a_task_that_is_killed_before_its_guard_is_entered_does_not_start(airflows_handler, holds, monkeypatch) -> None:
    """Airflow 3 calls `on_kill` and has the task go on: here while its connection is looked up."""
    from creditguard.airflow import ApiMallHook
    from creditguard.airflow.decorators import CreditGuardOperator

    task = CreditGuardOperator(
        task_id="enrich", python_callable=lambda: pytest.fail("was killed"), op_args=(), op_kwargs={}, budget=5
    )
    ti = SimpleNamespace(dag_id="dag", task_id="enrich", run_id="run", try_number=1, map_index=-1, task=task)
    monkeypatch.setattr("creditguard.airflow.host.get_current_context", lambda: {"ti": ti})
    get_conn = ApiMallHook.get_conn

    def killed(self) -> object:
        task.on_kill()
        return get_conn(self)

    monkeypatch.setattr(ApiMallHook, "get_conn", killed)
    with pytest.raises(SystemExit):
        task.execute({"ti": ti})
    assert holds() == []
