"""HTTP/1.1 over sockets: a thread that accepts, and one for each connection that reads, asks the Api and sends.

Written out rather than built on http.server because it is the floor of every timing taken against
it: no Date header, no log, no header object, and one send per answer. (Head and body in two sends
cost 40 ms and more: the second waits for the acknowledgement of the first.)
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from creditguard.sandbox.api import Api, Reply, Request
from creditguard.sandbox.faults import FaultSpec

if TYPE_CHECKING:
    import ssl

BACKLOG = 1024
MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024

_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_BODILESS = {204, 304}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds
_MALFORMED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Malformed(Exception):
    """A request without a readable end."""


class Server:
    """Listens from construction to `stop`."""

    def __init__(self, api: Api, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.host: str = host
        self.port: int = self._listener.getsockname()[1]
        self._api = api
        self._tls = tls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        """Those of the connections: a thread outlives its connection by a moment. The accepting thread alone changes it."""
        self._accepting = threading.Thread(target=self._accept, name="creditguard-sandbox", daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Hang up on everybody and wait for the threads to end."""
        self._stopping.set()
        _hang_up(self._listener)  # on Linux this wakes the thread that accepts; elsewhere it takes a caller
        with contextlib.suppress(OSError):
            socket.create_connection((self.host, self.port), timeout=1).close()
        self._accepting.join()
        self._listener.close()
        with self._lock:
            connections = set(self._open)
        for conn in connections:
            _hang_up(conn)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                conn, peer = self._listener.accept()
                if self._tls is not None:  # shakes hands at the first read, where `stop` can end it
                    conn = self._tls.wrap_socket(conn, server_side=True, do_handshake_on_connect=False)
            except OSError:  # stopping, the caller has gone, or no descriptor is left
                self._stopping.wait(0.01)
                continue
            of_one = (conn, _is_local(peer[0]))
            thread = threading.Thread(target=self._serve, args=of_one, name="creditguard-sandbox", daemon=True)
            with self._lock:
                try:
                    thread.start()
                except RuntimeError:  # no thread is left
                    conn.close()
                    continue
                self._open.add(conn)
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]

    def _serve(self, conn: socket.socket, local: bool) -> None:
        buffer = bytearray()
        try:
            with contextlib.suppress(OSError):  # a caller may leave at any time
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while self._exchange(conn, buffer, local):
                    pass
        finally:
            with self._lock:
                self._open.discard(conn)
            _hang_up(conn)
            conn.close()

    def _exchange(self, conn: socket.socket, buffer: bytearray, local: bool) -> bool:
        """One request and its answer. False when the connection is done with."""
        try:
            message = _read(conn, buffer, local)
        except _Malformed:
            conn.sendall(_MALFORMED)
            return False
        if message is None:
            return False
        request, keep = message
        fault = self._api.begin(request)
        if fault:
            if self._stopping.wait(fault.get("delay", 0.0)) or fault.get("close"):
                return False
            if fault.get("reset"):
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                conn.close()
                return False
        reply = self._api.answer(request, fault)
        if any(name.lower() == "content-length" for name in reply.headers):
            keep = False  # nobody knows where the next answer would begin
        head = _head(reply, keep)
        body = b"" if request.method == "HEAD" or reply.status in _BODILESS else reply.content
        if "drip" in fault:
            return self._drip(conn, head, body, fault) and keep
        conn.sendall(head + body)
        return keep

    def _drip(self, conn: socket.socket, head: bytes, body: bytes, fault: FaultSpec) -> bool:
        """Send byte by byte. False when stopped on the way."""
        if fault.get("drip_headers"):
            head, body = b"", head + body
        conn.sendall(head)
        pause = fault.get("drip", 0.0)
        for position in range(len(body)):
            if self._stopping.wait(pause):
                return False
            conn.sendall(body[position : position + 1])
        return True


def _is_local(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def _hang_up(conn: socket.socket) -> None:
    """End both directions, also for a thread that reads and a forked child that holds a copy."""
    with contextlib.suppress(OSError):
        # Not conn.shutdown: a TLS socket would lose its TLS state while another thread reads.
        socket.socket.shutdown(conn, socket.SHUT_RDWR)


def _read(conn: socket.socket, buffer: bytearray, local: bool) -> tuple[Request, bool] | None:
    """The next request and whether to keep the connection. None when the caller has gone."""
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        if len(buffer) > MAX_HEAD:
            raise _Malformed
        chunk = conn.recv(65536)
        if not chunk:
            return None
        buffer += chunk
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    words = first.split(" ")
    length = headers.get("content-length", "0")
    if len(words) != 3 or "transfer-encoding" in headers:
        raise _Malformed
    if not length.isdecimal() or len(length) > 9 or int(length) > MAX_BODY:
        raise _Malformed
    body_end = int(length)
    while len(buffer) < body_end:
        chunk = conn.recv(65536)
        if not chunk:
            return None
        buffer += chunk
    body = bytes(buffer[:body_end])
    del buffer[:body_end]
    method, target, version = words
    keep = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    path = target.partition("?")[0]
    return Request(method, path, headers.get("authorization", ""), body, local), keep


def _head(reply: Reply, keep: bool) -> bytes:
    headers = {"Content-Type": reply.content_type}
    if reply.status not in _BODILESS:
        headers["Content-Length"] = str(len(reply.content))
    if not keep:
        headers["Connection"] = "close"
    if reply.headers:
        replaced = {name.lower() for name in reply.headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in replaced}
        headers.update(reply.headers)
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    phrase = _PHRASES.get(reply.status, "Unknown")
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{lines}\r\n".encode("latin-1")
