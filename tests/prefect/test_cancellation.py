"""SIGTERM to the process of a flow, as `prefect flow-run cancel` and every container platform send it, and SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import prefect
import pytest

from creditguard import guard
from creditguard.prefect import kills
from creditguard.sandbox import Gateway

_SCRIPT = Path(__file__).with_name("killed.py")


class Started(NamedTuple):
    process: subprocess.Popen[str]
    flow_run_id: str


@pytest.fixture
def spawn(api, gateway: Gateway) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python process in a group of its own, whose tasks take so many seconds."""
    started: list[subprocess.Popen[str]] = []

    def spawn(*arguments: str, seconds: float = 100) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "PREFECT_API_URL": api.url, "KILLED_AFTER": str(seconds)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield spawn
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def start(spawn) -> Callable[..., Started]:
    """Start the script, and read a line: the id of the flow run, as soon as its guarded part has begun."""

    def start(kind: str, seconds: float = 100) -> Started:
        process = spawn(str(_SCRIPT), kind, seconds=seconds)
        return Started(process, process.stdout.readline().strip())

    return start


@pytest.mark.parametrize("kind", ["sync_flow", "async_flow", "called_task"])
def test_sigterm_still_settles(api, gateway, ledger, start, kind):
    process, flow_run_id = start(kind)
    assert [each.hold.job for each in ledger.holds()] == ["killed"]
    gateway.drain(8)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)

    # In an async flow the signal is raised by whatever the event loop was at; asyncio may turn it into a traceback.
    assert process.returncode == -signal.SIGTERM or (kind == "async_flow" and process.returncode == 1)
    assert list(ledger.holds()) == []
    (report,) = ledger.history()
    assert (report["balance_before"], report["balance_after"], report["credits_consumed"]) == (120, 112, 8)
    assert report["outcome"] in {"cancelled", "failed"}
    assert "creditguard.finished" in stderr
    assert gateway.key not in stderr
    if not prefect.__version__.startswith("3.8."):  # which leaves every such flow RUNNING, guarded or not
        assert api.flow_run(flow_run_id)["state"]["type"] == "CRASHED"
    # Prefect may lose what is still in its queues for logs and events. The artifact does not go by a queue.
    (artifact,) = api.artifacts(flow_run_id)
    assert artifact["table"]["balance_after"] == 112


def test_sigterm_waits_for_a_task_in_a_thread(api, gateway, ledger, start):
    """No Python program can interrupt a thread: the submitted task ends by itself, and settles then."""
    process, _ = start("submitted_task", 1.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert list(ledger.holds()) == []
    (report,) = ledger.history()
    assert report["duration_s"] > 1.4


@pytest.mark.parametrize("kind", ["mapped", "mapped_async"])
def test_sigterm_settles_tasks_in_threads_that_go_on(api, gateway, ledger, start, kind):
    """Long before the tasks end, and the process with them."""
    process, flow_run_id = start(kind, 15)
    api.eventually(lambda: len(ledger.holds()) == 3)
    gateway.drain(6)
    process.send_signal(signal.SIGTERM)
    api.eventually(lambda: not ledger.holds(), seconds=12)
    assert process.poll() is None
    reports = api.eventually(lambda: len(found := api.artifacts(flow_run_id)) == 3 and found)
    assert {(each["table"]["outcome"], each["table"]["balance_after"]) for each in reports} == {("cancelled", 114)}
    assert sorted(each["table"]["credits_consumed"] for each in reports) == [1, 2, 3]

    _, stderr = process.communicate(timeout=60)
    assert stderr.count("creditguard.finished") == 3
    assert len(api.artifacts(flow_run_id)) == 3  # the tasks, at their own end, leave none


def test_a_flow_that_just_ends_waits_for_its_tasks(api, gateway, ledger, start):
    """Nothing is cut short where nobody sent a signal."""
    process, flow_run_id = start("abandoned", 5)
    process.communicate(timeout=60)
    reports = api.artifacts(flow_run_id)
    assert [each["table"]["outcome"] for each in reports] == ["succeeded"] * 3


def test_sigterm_to_the_processes_of_a_pool_settles(api, gateway, ledger, start):
    """As systemd stops a service: the signal goes to every process, and those of a pool handle none.

    It comes again to those that still publish when the first of the pool has ended, and here three times at once.
    """
    process, flow_run_id = start("processes")
    for _ in range(2):
        assert process.stdout.readline().strip() == flow_run_id, "all three have begun"
    for _ in range(3):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.03)
    reports = api.eventually(lambda: len(found := api.artifacts(flow_run_id)) == 3 and found)
    assert {each["table"]["outcome"] for each in reports} == {"cancelled"}
    assert list(ledger.holds()) == []
    process.communicate(timeout=60)  # all of them have ended: they share its output


def test_a_cancelled_run_of_a_worker_settles_its_mapped_tasks(api, gateway, ledger, spawn, monkeypatch):
    """A real worker, and the cancellation by state that the UI and the CLI ask for: 30 seconds later the process is killed."""
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
    api.post("/work_pools/", {"name": "here", "type": "process"})
    flow_id = api.post("/flows/", {"name": "mapped"})["id"]
    deployment = {
        "name": "on-a-worker",
        "flow_id": flow_id,
        "work_pool_name": "here",
        "entrypoint": f"{_SCRIPT.name}:mapped",
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(_SCRIPT.parent)}}],
    }
    deployment_id = api.post("/deployments/", deployment)["id"]
    spawn("-m", "prefect", "worker", "start", "--pool", "here", "--type", "process")
    run_id = api.post(f"/deployments/{deployment_id}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
    api.eventually(lambda: len(ledger.holds()) == 3, seconds=120)

    api.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
    asked = time.monotonic()
    api.eventually(lambda: not ledger.holds(), seconds=25)
    print(f"no hold {time.monotonic() - asked:.1f} s after the cancellation was asked for")
    assert api.flow_run(run_id)["state"]["type"] == "CANCELLING"
    api.eventually(lambda: api.flow_run(run_id)["state"]["type"] == "CANCELLED", seconds=90)
    print(f"killed after {time.monotonic() - asked:.1f} s")
    assert {each["table"]["outcome"] for each in api.artifacts(run_id)} == {"cancelled"}
    assert len(api.artifacts(run_id)) == 3
    finished = api.eventually(lambda: len(found := api.events(run_id, "creditguard.finished")) == 3 and found)
    assert {each["payload"]["labels"]["deployment"] for each in finished} == {"on-a-worker"}
    api.eventually(lambda: [each["event"] for each in api.logs(run_id)].count("creditguard.finished") == 3)


def test_a_cancelled_run_of_a_deployment_settles(api, gateway, ledger, start, monkeypatch):
    """All of it real: a served deployment, its runner, and the cancellation by state that the UI and the CLI ask for."""
    monkeypatch.setenv("PREFECT_RUNNER_POLL_FREQUENCY", "1")
    start("deployment")
    deployment = api.eventually(lambda: api.post("/deployments/filter"))[0]
    run_id = api.post(f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
    api.eventually(ledger.holds)
    api.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
    api.eventually(lambda: api.flow_run(run_id)["state"]["type"] == "CANCELLED")

    assert list(ledger.holds()) == []
    finished = api.logs(run_id, "creditguard.finished")[-1]["fields"]
    assert finished["outcome"] in {"cancelled", "failed"}
    assert finished["labels"]["deployment"] == "every-night"
    assert finished["labels"]["deployment_id"] == deployment["id"]
    assert len(api.artifacts(run_id)) == 1


def test_the_hold_of_a_killed_flow_is_free_for_the_next(gateway, ledger, start):
    process, _ = start("sync_flow")
    process.kill()
    process.communicate(timeout=60)
    with guard("next", budget=100) as run:
        assert run.held_by_others == 0
    assert list(ledger.holds()) == []


def test_a_flow_that_is_cancelled_ends_no_run_beside_it(gateway, monkeypatch):
    """A time limit cancels all tasks that there are, as a signal does, but the process lives on."""
    monkeypatch.setattr(kills, "MOMENT", 0.0)

    @prefect.flow
    async def cancelled() -> None:
        async with guard("cancelled", budget=5):
            asyncio.current_task().cancel()
            await asyncio.sleep(60)

    with guard("beside", budget=5) as run:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cancelled())
        for thread in threading.enumerate():
            if thread.name == "creditguard-kill":
                thread.join()
        run.check()
    assert run.report.outcome == "succeeded"
