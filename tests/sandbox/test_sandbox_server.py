"""The HTTP server: connections, framing, speed, TLS, and a stop that leaves nothing behind."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trustme

from creditguard.sandbox import Gateway, server
from creditguard.sandbox.paths import BALANCES
from creditguard.sandbox.server import MAX_BODY, MAX_HEAD, _is_local

Connect = Callable[[], socket.socket]


def request(gateway: Gateway, *more: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [
        f"{method} {BALANCES} HTTP/{version}",
        "Host: x",
        f"AUTHORIZATION:Bearer {gateway.key}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_all(conn: socket.socket) -> bytes:
    data = b""
    while chunk := conn.recv(65536):
        data += chunk
    return data


def sandbox_threads() -> list[threading.Thread]:
    return [x for x in threading.enumerate() if x.name == "creditguard-sandbox"]


def test_a_connection_is_kept_and_answers_come_in_one_piece(gateway: Gateway) -> None:
    conn = http.client.HTTPConnection("127.0.0.1", httpx.URL(gateway.url).port, timeout=5)
    headers = {"Authorization": f"Bearer {gateway.key}"}
    conn.connect()
    first = conn.sock
    started = time.monotonic()
    for _ in range(50):
        conn.request("GET", BALANCES, headers=headers)
        assert conn.getresponse().read().startswith(b'{"success":true')
    took = time.monotonic() - started
    assert conn.sock is first
    conn.close()
    assert took < 1.5  # an answer in two sends waits 40 ms for an acknowledgement


def test_pipelined_requests_are_answered_in_turn(gateway: Gateway, connect: Connect) -> None:
    conn = connect()
    conn.sendall(request(gateway) * 3 + request(gateway, "Connection: close"))
    assert read_all(conn).count(b"HTTP/1.1 200 OK\r\n") == 4


def test_a_request_in_pieces(gateway: Gateway, connect: Connect) -> None:
    conn = connect()
    body = b'{"credits": 5}'
    head = request(gateway, f"Content-Length: {len(body)}", "Connection: close", method="POST")
    message = head.replace(BALANCES.encode(), b"/api/v1/images/generate") + body
    for position in range(0, len(message), 40):
        conn.sendall(message[position : position + 40])
        time.sleep(0.002)
    assert b'"remaining_credits":115' in read_all(conn)


@pytest.mark.parametrize(
    ("more", "version"),
    [(["Connection: close"], "1.1"), ([], "1.0"), (["Connection: Close"], "1.1")],
)
def test_a_caller_may_ask_to_close(gateway: Gateway, connect: Connect, more: list[str], version: str) -> None:
    conn = connect()
    conn.sendall(request(gateway, *more, version=version))
    answer = read_all(conn)
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"}")


def test_head_has_no_body(gateway: Gateway, connect: Connect) -> None:
    conn = connect()
    conn.sendall(request(gateway, "Connection: close", method="HEAD"))
    answer = read_all(conn)
    assert answer.startswith(b"HTTP/1.1 404")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "message",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1 x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        b"x" * (MAX_HEAD + 1),
    ],
)
def test_what_cannot_be_read_is_400_and_the_end(connect: Connect, message: bytes) -> None:
    conn = connect()
    conn.sendall(message)
    assert read_all(conn).startswith(b"HTTP/1.1 400 ")


def test_callers_that_leave_early_do_no_harm(gateway: Gateway, connect: Connect, client: httpx.Client) -> None:
    for part in (b"", b"GET", request(gateway, "Content-Length: 10") + b"half", request(gateway)):
        conn = connect()
        conn.sendall(part)
        conn.close()
    gateway.fault(drip=0.001, pad=10_000, times=1)
    conn = connect()
    conn.sendall(request(gateway))
    conn.recv(1)
    conn.close()
    assert client.get(BALANCES).status_code == 200


def test_many_connections_at_once(gateway: Gateway, connect: Connect) -> None:
    conns = [connect() for _ in range(100)]
    for conn in conns:
        conn.sendall(request(gateway))
    for conn in reversed(conns):
        assert conn.recv(65536).startswith(b"HTTP/1.1 200")
    assert gateway.balance_reads == 100


def test_a_failing_accept_is_tried_again(monkeypatch: pytest.MonkeyPatch, http: httpx.Client) -> None:
    accept = socket.socket.accept
    failures = [OSError("too many open files")] * 3

    def flaky(listener: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", flaky)
    with Gateway() as gateway:
        assert http.get(gateway.url).status_code == 401
    assert not failures


def test_a_caller_for_whom_there_is_no_thread_is_the_only_one_turned_away(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = ("127.0.0.1", httpx.URL(gateway.url).port or 0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
        with socket.create_connection(address, timeout=5) as turned_away:
            assert read_all(turned_away) == b""
    with socket.create_connection(address, timeout=5) as served:
        served.sendall(request(gateway))
        assert served.recv(65536).startswith(b"HTTP/1.1 200")


def raising(error: Exception) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_a_stop_leaves_no_thread_and_no_listener() -> None:
    before = sandbox_threads()
    gateway = Gateway().start()
    assert gateway.start() is gateway  # started already
    address = ("127.0.0.1", httpx.URL(gateway.url).port or 0)
    idle = [socket.create_connection(address, timeout=5) for _ in range(10)]
    idle[0].sendall(request(gateway))
    assert idle[0].recv(65536)
    waiting = [socket.create_connection(address, timeout=5) for _ in range(2)]
    gateway.fault(delay=60, times=1)
    waiting[0].sendall(request(gateway))
    while gateway.requests[BALANCES] < 2:
        time.sleep(0.005)
    gateway.fault(drip=60, times=1)
    waiting[1].sendall(request(gateway))
    waiting[1].recv(65536)
    assert len(sandbox_threads()) > len(before) + 3
    started = time.monotonic()
    gateway.stop()
    assert time.monotonic() - started < 10  # and not 60
    assert sandbox_threads() == before
    for conn in idle + waiting:
        assert read_all(conn) == b""
        conn.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    gateway.stop()  # and again: nothing to do


def test_a_stop_waits_for_the_thread_of_a_connection_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    at_its_end, go_on = threading.Event(), threading.Event()
    hang_up = server._hang_up

    def slowly(conn: socket.socket) -> None:
        if threading.current_thread() in served:
            at_its_end.set()
            go_on.wait(20)
        hang_up(conn)

    before = sandbox_threads()
    gateway = Gateway().start()
    accepting = sandbox_threads()
    conn = socket.create_connection(("127.0.0.1", httpx.URL(gateway.url).port or 0), timeout=5)
    conn.sendall(request(gateway))
    assert conn.recv(65536)
    served = set(sandbox_threads()) - set(accepting)
    monkeypatch.setattr(server, "_hang_up", slowly)
    conn.close()
    assert at_its_end.wait(20)
    stopping = threading.Thread(target=gateway.stop)
    stopping.start()
    stopping.join(0.2)
    assert stopping.is_alive()
    go_on.set()
    stopping.join(20)
    assert sandbox_threads() == before


def test_a_gateway_comes_back_at_the_same_address_with_its_pool(http: httpx.Client) -> None:
    gateway = Gateway()
    with pytest.raises(RuntimeError, match="not been started"):
        assert gateway.url
    with gateway:
        url = gateway.url
        gateway.drain(20)
    assert gateway.url == url
    headers = {"Authorization": f"Bearer {gateway.key}"}
    with pytest.raises(httpx.ConnectError):
        http.get(url + BALANCES, headers=headers)
    with gateway:
        assert gateway.url == url
        data = http.get(url + BALANCES, headers=headers).json()["data"]
    assert data["credits"] == 100


def test_two_gateways_are_strangers(http: httpx.Client, gateway: Gateway) -> None:
    with Gateway(5) as other:
        assert other.url != gateway.url
        headers = {"Authorization": f"Bearer {gateway.key}"}
        assert http.get(other.url + BALANCES, headers=headers).is_client_error
        other.drain(5)
    assert gateway.credits == 120


def test_a_port_in_use_is_an_error(gateway: Gateway) -> None:
    port = httpx.URL(gateway.url).port or 0
    with pytest.raises(OSError, match="in use"):
        Gateway(port=port).start()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def test_tls(authority: trustme.CA, http: httpx.Client) -> None:
    before = sandbox_threads()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Gateway(tls=server) as gateway:
        assert gateway.url.startswith("https://127.0.0.1:")
        headers = {"Authorization": f"Bearer {gateway.key}"}
        address = ("127.0.0.1", httpx.URL(gateway.url).port or 0)
        with httpx.Client(base_url=gateway.url, headers=headers, verify=trusting, trust_env=False) as client:
            assert client.get(BALANCES).json()["data"]["credits"] == 120
            assert client.get(BALANCES).json()["data"]["credits"] == 120
            gateway.fault(reset=True, times=1)
            with pytest.raises(httpx.TransportError):  # Python shows a reset as an end here
                client.get(BALANCES)
            with pytest.raises(httpx.ConnectError, match="certificate"):
                http.get(gateway.url)
            with socket.create_connection(address, timeout=5) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert not read_all(plain).startswith(b"HTTP")
            with socket.create_connection(address, timeout=5):
                gateway.stop()  # one connection is idle, one has yet to shake hands
    assert sandbox_threads() == before


def test_ipv6(http: httpx.Client) -> None:
    try:
        gateway = Gateway(host="::1").start()
    except OSError:
        pytest.skip("no IPv6 here")
    with gateway:
        assert gateway.url.startswith("http://[::1]:")
        headers = {"Authorization": f"Bearer {gateway.key}"}
        answer = http.get(gateway.url + "/_sandbox/state", headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("128.0.0.1", False),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_which_addresses_are_this_machine(address: str, local: bool) -> None:
    assert _is_local(address) is local
