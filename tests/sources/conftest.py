"""Readings of a scripted server: from the main thread, and from another one as the engine does it."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from creditguard.errors import BalanceUnavailable
from creditguard.rules.values import Balance
from creditguard.sources import retries, transport
from creditguard.sources.apimall import ApiMall

sys.path.append(str(Path(__file__).parent))  # pytest's importlib mode has no imports between test files otherwise

from renderers import showing
from scripted_server import KEY, SLACK, Act, Server, balance


def _secret_keeping(error: BaseException) -> None:
    """The key is nowhere in the error: not in its words, nor in what it came from, nor in the frames it went through."""
    for text in (str(error), repr(error), repr(error.args)):
        assert KEY not in text
    assert showing(error, KEY) == []
    assert error.__cause__ is None
    assert error.__context__ is None


class Reader:
    """Reads a source in the main thread, where each request has a thread of its own, or in another, which may send it."""

    def __init__(self, *, in_main: bool) -> None:
        self._in_main = in_main

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._in_main:
            return function(*args)
        outcome: list[Any] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                outcome.append(function(*args))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        for error in failures:
            raise error
        return outcome[0]

    def __call__(self, source: ApiMall, timeout: float = 5.0) -> Balance:
        return self.run(source.read, timeout)

    def twice(self, source: ApiMall, between: Callable[[], None] = lambda: None) -> list[Balance]:
        """Two readings of one thread."""

        def both() -> list[Balance]:
            first = source.read(5)
            between()
            return [first, source.read(5)]

        return self.run(both)

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


@pytest.fixture(params=["main", "thread"])
def read(request: pytest.FixtureRequest) -> Reader:
    return Reader(in_main=request.param == "main")


@pytest.fixture
def in_thread() -> Reader:
    return Reader(in_main=False)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def make_server(authority: trustme.CA) -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def make(*script: Act, tls: str | None = None, host: str = "127.0.0.1") -> Server:
            context = None
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                authority.issue_cert(tls).configure_cert(context)
            server = Server(context, host)
            server.script = list(script)
            stack.callback(server.close)
            return server

        yield make


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
    transport.close()
    yield
    transport.close()


@pytest.fixture(autouse=True)
def _nothing_told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever a test does, at the most talkative level the key is not logged, and no request is logged above DEBUG."""
    caplog.set_level(logging.DEBUG)
    yield
    records = caplog.get_records("call")
    assert not [record for record in records if KEY in record.getMessage()]
    assert not [record for record in records if record.levelno > logging.DEBUG]
    written = capfd.readouterr()
    assert not written.out
    assert not written.err
