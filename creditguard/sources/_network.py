"""TCP connections that keep to one deadline: name lookup, connect, TLS, and every byte, however slowly it drips.

httpcore's own timeouts hold for each read alone, so a server that sends a byte a second is never too slow for them, and the
lookup of a name has none at all. Asynchronous readings are bounded by a cancel scope around the whole, so what is left to do
here for them is the lookup: an event loop waits at its end for the threads that it looked names up with.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias, cast

import anyio
import httpcore

Options: TypeAlias = "Iterable[httpcore.SOCKET_OPTION] | None"


class NoAddressError(httpcore.ConnectError):
    """The name of the host could not be looked up."""


class Backend(httpcore.SyncBackend):
    """Every `timeout` that reaches it and its streams is a *deadline*: an instant of time.monotonic()."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Options = None,
    ) -> httpcore.NetworkStream:
        lookup = Lookup(host, port)
        if not lookup.done.wait(_left(timeout, httpcore.ConnectTimeout)):
            raise httpcore.ConnectTimeout
        *others, last = lookup.addresses()
        for index, address in enumerate(others):
            # A fair share of the time for each address: the first may be one that never answers.
            share = _left(timeout, httpcore.ConnectTimeout) / (len(others) - index + 1)
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return _Stream(super().connect_tcp(_unencoded(address), port, share, local_address, socket_options))
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(super().connect_tcp(_unencoded(last), port, left, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


def _unencoded(address: str) -> str:
    """As bytes, which sockets take as well, and for which they do not load the codec for names beyond ASCII (1 ms)."""
    return cast("str", address.encode())


def _left(deadline: float | None, error: type[Exception]) -> float:
    left = (deadline or 0.0) - time.monotonic()
    if left <= 0:
        raise error
    return min(left, 1e6)  # a socket's timeout may not be infinite


class AsyncBackend(httpcore.AnyIOBackend):
    """`timeout` is in seconds, as everywhere in httpcore."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Options = None,
    ) -> httpcore.AsyncNetworkStream:
        lookup = Lookup(host, port)
        nap = 0.0005
        while not lookup.done.is_set():
            await anyio.sleep(nap)
            nap = min(nap * 2, 0.02)
        *others, last = lookup.addresses()
        share = None if timeout is None else timeout / (len(others) + 1)
        for address in others:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return _AsyncStream(await super().connect_tcp(address, port, share, local_address, socket_options))
        return _AsyncStream(await super().connect_tcp(last, port, share, local_address, socket_options))


class _AsyncStream(httpcore.AsyncNetworkStream):
    """Closes the connection when its TLS handshake is cancelled, which httpcore leaves open."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> _AsyncStream:
        try:
            return _AsyncStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Lookup:
    """The addresses of a host; looked up in a thread that nothing waits for, unless the host is an address already.

    The host is ASCII: names beyond that are refused where they are set.
    """

    def __init__(self, host: str, port: int) -> None:
        self.done: threading.Event = threading.Event()
        self._found: list[str] = []
        try:
            self._look(host, port, socket.AI_NUMERICHOST)
        except OSError:
            thread = threading.Thread(target=self._look_up, args=(host, port), name="creditguard-lookup", daemon=True)
            thread.start()
        else:
            self.done.set()

    def addresses(self) -> list[str]:
        """At least one, once `done`."""
        if not self._found:
            raise NoAddressError
        return self._found

    def _look_up(self, host: str, port: int) -> None:
        try:
            self._look(host, port, 0)
        except OSError:
            pass
        finally:
            self.done.set()

    def _look(self, host: str, port: int, flags: int) -> None:
        answers = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM, flags=flags)
        self._found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
