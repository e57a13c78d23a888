"""Real ledgers: SQLite files, and a PostgreSQL server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer

sys.path.append(str(Path(__file__).parent))  # pytest's importlib mode has no imports between test files otherwise

from ledger_world import Agent, AnyLedger, Backend, Clock, Server, ServerClock, in_balance


@pytest.fixture(scope="session")
def server(postgres: PostgresServer) -> Iterator[Server]:
    server = Server(postgres)
    yield server
    server.close()


@pytest.fixture
def empty_server(server: Server) -> Server:
    """The server, without a ledger in it."""
    server.execute("DROP SCHEMA IF EXISTS creditguard CASCADE")
    return server


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield Backend("sqlite", f"sqlite:///{tmp_path}/ledger.db", Clock(), stack)
        else:
            server: Server = request.getfixturevalue("empty_server")
            yield Backend("postgres", server.url, ServerClock(server), stack)


@pytest.fixture
def ledger(backend: Backend) -> AnyLedger:
    return backend.client()


@pytest.fixture
def agents() -> Iterator[Callable[..., Agent]]:
    with ExitStack() as stack:

        def start(url: str, *options: str, **how: Any) -> Agent:
            agent = Agent(url, *options, **how)
            stack.callback(agent.close)
            return agent

        yield start


@pytest.fixture
def balanced(backend: Backend) -> Iterator[None]:
    """After the test, the totals must be right."""
    yield
    assert in_balance(backend.url)
