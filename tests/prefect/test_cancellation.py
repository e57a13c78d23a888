"""SIGTERM to the process of a flow, as `prefect flow-run cancel` and every container platform send it, and SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from creditguard import guard
from creditguard.sandbox import Gateway

_SCRIPT = Path(__file__).with_name("killed.py")


@pytest.fixture
def start(api, gateway: Gateway) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start the script, and read a line: the id of the flow run, as soon as its guarded part has begun."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str, seconds: float = 100) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), kind],
            env={**os.environ, "PREFECT_API_URL": api.url, "KILLED_AFTER": str(seconds)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("kind", ["flow", "async-flow", "task"])
def test_sigterm_still_settles(api, gateway, ledger, start, kind):
    process, flow_run_id = start(kind)
    assert [each.hold.job for each in ledger.holds()] == ["killed"]
    gateway.drain(8)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)

    # In an async flow the signal is raised by whatever the event loop was at; asyncio may turn it into a traceback.
    assert process.returncode == -signal.SIGTERM or (kind == "async-flow" and process.returncode == 1)
    assert list(ledger.holds()) == []
    (report,) = ledger.history()
    assert (report["balance_before"], report["balance_after"], report["credits_consumed"]) == (120, 112, 8)
    assert report["outcome"] in {"cancelled", "failed"}
    assert "creditguard.finished" in stderr
    assert gateway.key not in stderr
    assert api.flow_run(flow_run_id)["state"]["type"] == "CRASHED"
    # Prefect may lose what is still in its queues for logs and events. The artifact does not go by a queue.
    (artifact,) = api.artifacts(flow_run_id)
    assert artifact["table"]["balance_after"] == 112


def test_sigterm_waits_for_a_task_in_a_thread(api, gateway, ledger, start):
    """No Python program can interrupt a thread: the submitted task ends by itself, and settles then."""
    process, _ = start("submitted", 1.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert list(ledger.holds()) == []
    (report,) = ledger.history()
    assert report["duration_s"] > 1.4


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
    process, _ = start("flow")
    process.kill()
    process.communicate(timeout=60)
    with guard("next", budget=100) as run:
        assert run.held_by_others == 0
    assert list(ledger.holds()) == []
