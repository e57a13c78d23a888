"""Whatever hits a job, or Prefect's server, while an artifact is on its way: the server is stopped (SIGSTOP) just before."""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from prefect import flow, task
from prefect.artifacts import MarkdownArtifact
from prefect.server.api.server import SubprocessASGIServer
from prefect.states import State

from creditguard.prefect import artifacts, credit_gate, guard, kills


class Server:
    """Prefect's server, a process that can be stopped. It goes on after a while in any case."""

    def __init__(self) -> None:
        (self._pid,) = {each.server_process.pid for each in SubprocessASGIServer._instances.values() if each.running}
        self._timer = threading.Timer(30, self.go_on)
        self.is_stopped = False

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)
        os.waitpid(self._pid, os.WUNTRACED)
        self.is_stopped = True
        self._timer.start()

    def go_on(self) -> None:
        self.is_stopped = False
        os.kill(self._pid, signal.SIGCONT)
        self._timer.cancel()


@pytest.fixture
def server(api) -> Iterator[Server]:
    server = Server()
    yield server
    server.go_on()


class TooLongError(Exception):
    """A time limit of the job's own, as a signal handler raises it."""


@pytest.fixture
def limit(server) -> Iterator[threading.Timer]:
    """Ends the job a second after it is started, and the server goes on."""

    def too_long(*_: object) -> None:
        server.go_on()
        raise TooLongError

    before = signal.signal(signal.SIGUSR1, too_long)
    yield threading.Timer(1, os.kill, (os.getpid(), signal.SIGUSR1))
    signal.signal(signal.SIGUSR1, before)


def reports_of(api, state: State) -> list[dict]:
    return api.eventually(lambda: api.artifacts(state.state_details.flow_run_id))


@pytest.mark.parametrize("kind", ["block", "watched", "async", "gate"])
def test_a_server_that_hangs_keeps_no_job(api, gateway, server, monkeypatch, kind) -> None:
    monkeypatch.setattr(artifacts, "PATIENCE", 0.5)
    left_while_stopped = []

    def left() -> None:
        left_while_stopped.append(server.is_stopped)
        server.go_on()

    @flow
    def job() -> None:
        if kind == "gate":
            server.stop()
            credit_gate("hung", budget=5)
        else:
            options = {"watch": 0.1, "min_interval": 0} if kind == "watched" else {}
            with guard("hung", budget=5, **options):
                server.stop()
        left()

    @flow
    async def asynchronous() -> None:
        async with guard("hung", budget=5):
            server.stop()
        left()

    state = asyncio.run(asynchronous(return_state=True)) if kind == "async" else job(return_state=True)
    assert state.is_completed()
    assert left_while_stopped == [True]
    kind = "credit-gate" if kind == "gate" else "credit-report"
    assert len(api.eventually(lambda: api.artifacts(state.state_details.flow_run_id, kind))) == 1


def test_a_time_limit_of_the_jobs_own_comes_out(api, gateway, server, limit) -> None:
    @flow
    def job() -> None:
        with guard("limited", budget=5):
            server.stop()
            limit.start()

    state = job(return_state=True)
    with pytest.raises(TooLongError):
        state.result()
    assert len(reports_of(api, state)) == 1


def test_a_job_that_is_interrupted_while_it_settles_has_its_page(api, gateway, limit, ledger) -> None:
    @flow
    def job() -> None:
        with guard("limited", budget=5):
            gateway.fault(delay=4, times=1)
            limit.start()

    state = job(return_state=True)
    with pytest.raises(TooLongError):
        state.result()
    (report,) = reports_of(api, state)
    assert report["table"]["outcome"] == "succeeded"
    assert list(ledger.holds()) == []


def test_a_signal_that_nobody_handles_waits_for_the_page(gateway, monkeypatch) -> None:
    handlers = []
    create = MarkdownArtifact.create

    def noting(self, **options: object) -> object:
        handlers.append(signal.getsignal(signal.SIGTERM))
        return create(self, **options)

    monkeypatch.setattr(MarkdownArtifact, "create", noting)

    @task
    def job() -> None:
        with guard("alone", budget=5):
            pass

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        job()
        assert handlers == [kills._on_sigterm]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_task_starts_no_thread(gateway, monkeypatch) -> None:
    """CPython would raise in it what Prefect's time limit raises in the task."""
    starters = []
    start = _thread.start_new_thread

    def noting(function, *args: object) -> int:
        if function.__name__ == "run":  # a context's: that of an artifact
            starters.append(threading.current_thread().name)
        return start(function, *args)

    monkeypatch.setattr(_thread, "start_new_thread", noting)

    @flow
    def job() -> None:
        with guard("job", budget=5):
            pass

    job()
    assert set(starters) == {"creditguard"}
