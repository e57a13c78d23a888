"""A server on loopback that answers, and misbehaves, by script."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable

KEY = "sk-0123456789abcdef0123456789abcdef0123456789abcdef"
SLACK = 0.4
"""Seconds by which a busy test machine may be late."""
Act = bytes | Callable[[socket.socket, bytes], None]


def http(status: int = 200, body: object = None, **headers: str) -> bytes:
    """An answer. `body` is sent as it is if it is bytes, else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Word", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def balance(amount: object = 120, **more: object) -> bytes:
    return http(200, {"success": True, "data": {"credits": 7, "api_credits": amount}, "request_id": "req_1"} | more)


def refusal(status: int, code: str, message: str = "No.", **headers: str) -> bytes:
    body = {"success": False, "error": {"code": code, "message": message}, "request_id": "req_2"}
    return http(status, body, **headers)


class Server:
    """Does one act of its script for each request; the last act again and again. An act is bytes to send, or a function of
    the connection and the request; one that closes the connection ends it."""

    def __init__(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.script: list[Act] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self._context = context
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(self._end)
            stack.callback(client.close)
            if self._context:
                client = self._context.wrap_socket(client, server_side=True)
                self._open.append(client)
                stack.callback(client.close)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = client.recv(65536)
                    if not more:
                        return
                    data += more
                request, _, data = data.partition(b"\r\n\r\n")
                with self._lock:
                    self.requests.append(request)
                    act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                if callable(act):
                    act(client, request)
                else:
                    client.sendall(act)

    def _end(self) -> None:
        with self._lock:
            self.ended += 1

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()
        for thread in self._threads:
            thread.join(5)


def drip(data: bytes, every: float = 0.02) -> Act:
    """Send a byte at a time: never slow enough for a timeout that holds for one read."""

    def act(client: socket.socket, _: bytes) -> None:
        for byte in data:
            client.sendall(bytes([byte]))
            time.sleep(every)

    return act


def chunked(data: bytes, size: int = 16) -> bytes:
    """The answer as it would come in chunks."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""]) + framed


def hang_up(client: socket.socket, _: bytes) -> None:
    client.shutdown(socket.SHUT_RDWR)
    client.close()


def reset(client: socket.socket, _: bytes) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()


def then_hang_up(data: bytes) -> Act:
    def act(client: socket.socket, request: bytes) -> None:
        client.sendall(data)
        hang_up(client, request)

    return act


def never(client: socket.socket, _: bytes) -> None:
    """Say nothing until the other side goes away."""
    client.recv(1)
