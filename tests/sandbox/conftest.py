"""A running gateway and ways to talk to it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import httpx
import pytest

from creditguard.sandbox import Gateway

Connect = Callable[[], socket.socket]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway(credits=120) as running:
        yield running


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """A client without a key. One for all: making one takes longer than most tests here."""
    with httpx.Client(trust_env=False, timeout=5) as http:
        yield http


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client with the gateway's key."""
    unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # else httpx loads every certificate there is
    headers = {"Authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=5, verify=unused) as client:
        yield client


@pytest.fixture
def connect(gateway: Gateway) -> Iterator[Connect]:
    """Raw connections to the gateway, closed at the end."""
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        conn = socket.create_connection(("127.0.0.1", httpx.URL(gateway.url).port or 0), timeout=5)
        opened.append(conn)
        return conn

    yield connect
    for conn in opened:
        conn.close()
