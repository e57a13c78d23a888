"""Readings of a scripted server: in a thread, under asyncio and under trio."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trustme

from creditguard.errors import BalanceUnavailable
from creditguard.rules.values import Balance
from creditguard.sources import connection, retries
from creditguard.sources.apimall import ApiMall

sys.path.append(str(Path(__file__).parent))  # pytest's importlib mode has no imports between test files otherwise

from scripted_server import KEY, Act, Server, balance

SLACK = 0.4
"""Seconds by which a busy test machine may be late."""


def _secret_keeping(error: BaseException) -> None:
    """The key is nowhere in the error: not in its words, nor in what it came from, nor in the frames it went through."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    for text in (str(error), repr(error), repr(error.args), *shown.format()):
        assert KEY not in text
    link: BaseException | None = error
    while link is not None:
        assert type(link).__module__.partition(".")[0] not in {"httpx", "httpcore", "anyio", "h11", "ssl"}
        link = link.__cause__ or link.__context__


class Reader:
    """Reads a source in one of three ways."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __call__(self, source: ApiMall, timeout: float = 5.0) -> Balance:
        if self.way == "sync":
            return source.read(timeout)
        if self.way == "asyncio":
            return asyncio.run(source.aread(timeout))
        return trio.run(source.aread, timeout)

    def twice(self, source: ApiMall, between: Callable[[], None] = lambda: None) -> list[Balance]:
        """Two readings of one process, or of one event loop."""

        async def both() -> list[Balance]:
            first = await source.aread(5)
            between()
            return [first, await source.aread(5)]

        if self.way == "sync":
            first = source.read(5)
            between()
            return [first, source.read(5)]
        return asyncio.run(both()) if self.way == "asyncio" else trio.run(both)

    def fails(self, source: ApiMall, kind: type[BalanceUnavailable], timeout: float = 5.0) -> BalanceUnavailable:
        """The error of a reading, which must be of just that kind, come in time, and keep the key to itself."""
        started = time.monotonic()
        with pytest.raises(BalanceUnavailable) as caught:
            self(source, timeout)
        assert time.monotonic() - started < max(timeout, 0) + SLACK
        _secret_keeping(caught.value)
        assert type(caught.value) is kind, str(caught.value)
        assert str(caught.value).isprintable()
        return caught.value


@pytest.fixture(params=["sync", "asyncio", "trio"])
def read(request: pytest.FixtureRequest) -> Reader:
    return Reader(request.param)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def make_server(authority: trustme.CA) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(*script: Act, tls: str | None = None) -> Server:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(tls).configure_cert(context)
        server = Server(context)
        server.script = list(script)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """Plain http; answers with a balance of 120 until it is told otherwise."""
    return make_server(balance())


@pytest.fixture
def source(server: Server) -> ApiMall:
    return ApiMall(KEY, f"http://127.0.0.1:{server.port}")


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No connection from another test, nothing of this machine's environment, and pauses as short as they can be."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(retries, "PAUSE", 0.02)
    process = connection._Process()
    monkeypatch.setattr(connection, "_process", process)
    yield
    process.close()


@pytest.fixture(autouse=True)
def _nothing_told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever a test does, at the most talkative level the key is not logged, and no request is logged above DEBUG."""
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    written = capfd.readouterr()
    assert not written.out
    assert not written.err
