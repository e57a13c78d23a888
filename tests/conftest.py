"""For every test: an environment of its own, no ledger of the developer's, and every event held against the schema; for some, PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from event_schema import validate_event
from postgres_server import PostgresServer

from creditguard.rules.events import Event
from creditguard.settings import CONFIG, VARIABLES
from creditguard.sinks.host import HostSink

# Commands that the tests start shall not inherit what was ignored or blocked when the tests were started in the background, as a cron job
# or under nohup. A handler is the default again in a program that is started, and here a hang-up goes on doing nothing.
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    ours = (*VARIABLES.values(), CONFIG, "CREDITGUARD_DEBUG", "CREDITGUARD_RUN_ID", "CREDITGUARD_RECORD_FILE")
    for variable in ours:
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    # A folder that is closed to us, as root's are to whom `su` makes of it, turns "not found" into "permission denied".
    monkeypatch.setenv("PATH", ":".join(folder for folder in os.get_exec_path() if os.access(folder, os.X_OK)))
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # less, for one, keeps a history there
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture(autouse=True)
def _every_event_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    emit = HostSink.emit

    def checked(self: HostSink, event: Event) -> None:
        validate_event({"event": event.name, "level": event.level, **event.fields})
        emit(self, event)

    monkeypatch.setattr(HostSink, "emit", checked)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of this process."""
    for variable in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[variable]  # psycopg would connect as they say
    server = PostgresServer()
    yield server
    server.remove()
