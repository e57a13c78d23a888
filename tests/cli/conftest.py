"""What the tests of the command line share: the real command in a real process, and checks that hold for all its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
from event_schema import validate_event
from past_runs import Past

from creditguard.sandbox import Gateway


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def events(self) -> list[dict[str, object]]:
        """The events on stderr, each held against the schema."""
        events = [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]
        for event in events:
            validate_event(event)
        return events

    @property
    def names(self) -> list[str]:
        return [str(event["event"]).removeprefix("creditguard.") for event in self.events]

    @property
    def messages(self) -> list[str]:
        """What is on stderr besides events."""
        return [line for line in self.stderr.splitlines() if not line.startswith("{")]


@pytest.fixture
def gateway(credit_gateway: Gateway) -> Gateway:
    return credit_gateway


@pytest.fixture
def creditguard() -> Callable[..., Done]:
    """Run the command line; whatever it prints, it is no traceback and no key."""

    def run(*arguments: object, timeout: float = 30, env: dict[str, str | None] | None = None, **more: object) -> Done:
        environment = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
        command = [sys.executable, "-m", "creditguard", *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        start = time.monotonic()
        done = subprocess.run(command, env=environment, text=True, timeout=timeout, **{**streams, **more})
        seconds = time.monotonic() - start
        for text in filter(None, (done.stdout, done.stderr)):
            assert "Traceback" not in text, text
            key = environment.get("APIMALL_API_KEY") or ""
            assert len(key) < 8 or key not in text
        return Done(done.returncode, done.stdout, done.stderr, seconds)

    return run


_databases = count()


@pytest.fixture(params=["sqlite", "postgres"])
def past(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gateway: Gateway) -> Past:
    """A ledger of past runs, which is the one in force."""
    url = f"sqlite:///{tmp_path}/past.db"
    if request.param == "postgres":
        server, name = request.getfixturevalue("postgres").url, f"past_{next(_databases)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = server.replace("/postgres?", f"/{name}?")
    monkeypatch.setenv("CREDITGUARD_LEDGER", url)
    return Past(url)


@pytest.fixture
def dated_past(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Past:
    """The same, where runs of other days can be filed."""
    url = f"sqlite:///{tmp_path}/past.db"
    monkeypatch.setenv("CREDITGUARD_LEDGER", url)
    return Past(url)
