"""The connections of this process, kept open between readings: one pool per gateway, and for async one per event loop as well.

This speaks to httpcore, the engine under httpx. httpx's own client cannot be given a deadline for a request as a whole, tells
the host program's log of every request, and hangs the request, key and all, on its exceptions.

Nothing that httpcore raises leaves this module, only the few words of a `Failure`: no key can be found by following an
exception's `__context__`, or in the variables of the frames of its traceback. httpcore's own log, at DEBUG, has the headers of
answers, not those of requests.
"""

from __future__ import annotations

import atexit
import os
import ssl
import sys
import threading
import time
from collections.abc import AsyncGenerator
from typing import Any, TypeAlias

import anyio
import httpcore
from anyio.lowlevel import RunVar

from creditguard import forks
from creditguard.sources._network import AsyncBackend, Backend, NoAddressError
from creditguard.sources.environment import EnvironmentUnusableError, Proxy, proxy_for, tls_context
from creditguard.sources.exchange import LIMIT, Failure, Reply, Request

KEPT_OPEN = 5.0
"""Seconds for which an idle connection may be used again: less than servers and firewalls allow, so it is hardly ever one that
the other side has given up."""

_Key: TypeAlias = tuple[str, str, int]


def send(request: Request, timeout: float) -> Reply | Failure:
    """Send the request, and wait for the whole answer, within `timeout` seconds in all."""
    handled = sys.exc_info()[1]
    response: httpcore.Response | None = None
    failure: Failure | None = None
    body = bytearray()
    try:
        pool = _process.pool(request)
        response = pool.handle_request(_prepared(request, time.monotonic() + timeout, timeout))
        try:
            for part in response.iter_stream():
                body += part
                if len(body) > LIMIT:
                    break
        finally:
            response.close()
    except Exception as error:  # whatever went wrong in there, it is a reading that failed
        failure = _explain(error, handled, _process.via(request))
    except BaseException as error:
        raise error.with_traceback(None) from None  # the frames of httpcore hold the request
    return _outcome(response, body, failure)


async def asend(request: Request, timeout: float) -> Reply | Failure:  # noqa: ASYNC109 - as its twin
    """As `send`, without blocking the event loop."""
    handled = sys.exc_info()[1]
    response: httpcore.Response | None = None
    failure: Failure | None = None
    body = bytearray()
    try:
        with anyio.move_on_after(timeout) as scope:
            pool = await _loop_pool(request)
            response = await pool.handle_async_request(_prepared(request, timeout, timeout))
            try:
                async for part in response.aiter_stream():
                    body += part
                    if len(body) > LIMIT:
                        # Leaving the loop would leave generators unfinished, which trio minds: let them fail instead.
                        await response.extensions["network_stream"].aclose()
            finally:
                await response.aclose()
        if scope.cancelled_caught:
            failure = Failure("no answer in time", "timeout")
    except Exception as error:
        failure = _explain(error, handled, _process.via(request))
    except BaseException as error:
        raise error.with_traceback(None) from None
    return _outcome(response, body, failure)


def close() -> None:
    """Close the connections that threads of this process share. The next reading opens another."""
    _process.close()


def _prepared(request: Request, due: float, timeout: float) -> httpcore.Request:
    url = httpcore.URL(
        scheme=request.scheme.encode(), host=request.host.encode(), port=request.port, target=request.target.encode()
    )
    timeouts = {"connect": due, "read": due, "write": due, "pool": timeout}
    return httpcore.Request(b"GET", url, headers=request.headers, extensions={"timeout": timeouts})


def _outcome(response: httpcore.Response | None, body: bytearray, failure: Failure | None) -> Reply | Failure:
    if response is None:
        return failure or Failure("no answer", "network")
    cut = len(body) > LIMIT
    if failure and response.status == 200 and not cut:
        return failure
    # The body of any other answer does not matter: the status says enough.
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return Reply(response.status, headers, bytes(body[:LIMIT]), cut)


def _explain(error: Exception, handled: BaseException | None, via: str) -> Failure:
    """What went wrong, in words of our own: those of the libraries may quote what the server sent.

    `handled` is what the caller was handling already: its job may have failed for a reason like ours.
    """
    if isinstance(error, EnvironmentUnusableError):
        return Failure(str(error), "fatal")
    if isinstance(error, httpcore.TimeoutException):
        return Failure("no answer in time", "timeout")
    if isinstance(error, NoAddressError):
        return Failure(f"the name could not be resolved{via}", "network")
    if isinstance(error, httpcore.ProxyError):
        return Failure(f"refused with {str(error)[:3]}{via}", "network")
    if isinstance(error, httpcore.RemoteProtocolError):
        cut_off = str(error).startswith(("Server disconnected", "peer closed"))
        return Failure(f"the connection was cut off{via}", "dropped") if cut_off else Failure("not HTTP", "garbled")
    cause: BaseException | None = error
    while cause and cause is not handled and not (isinstance(cause, OSError) and cause.errno):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Failure(f"its certificate was not trusted ({cause.verify_message})", "fatal")
    if isinstance(cause, ssl.SSLError):
        why = f"TLS failed ({cause.reason or type(cause).__name__})"
    elif isinstance(cause, OSError) and cause is not handled:
        why = os.strerror(cause.errno or 0).lower()
    else:
        why = type(error).__name__
    return Failure(why + via, "dropped" if isinstance(error, (httpcore.ReadError, httpcore.WriteError)) else "network")


def _key(request: Request) -> _Key:
    return request.scheme, request.host, request.port


class _Process:
    """The pools that the threads of this process share, and the one TLS context."""

    def __init__(self) -> None:
        self._pools: dict[_Key, httpcore.ConnectionPool] = {}
        self._proxies: dict[_Key, str] = {}
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def pool(self, request: Request) -> httpcore.ConnectionPool:
        key = _key(request)
        pool = self._pools.get(key)
        if pool is None:
            made = httpcore.ConnectionPool(network_backend=Backend(), **self.options(request))
            with self._lock:
                pool = self._pools.setdefault(key, made)
        return pool

    def via(self, request: Request) -> str:
        """Which proxy stands between, for an error."""
        return self._proxies.get(_key(request), "")

    def options(self, request: Request) -> dict[str, Any]:
        """How to connect to the request's gateway. Where nothing is encrypted, no time goes into a TLS context."""
        proxy = proxy_for(request.scheme, request.host, request.port)
        if proxy:
            self._proxies[_key(request)] = f" (through the proxy {proxy.host}:{proxy.port})"
        return {
            "ssl_context": self.context() if request.scheme == "https" else None,
            "proxy": self._proxy(proxy) if proxy else None,
            "max_connections": 100,
            "max_keepalive_connections": 20,
            "keepalive_expiry": KEPT_OPEN,
        }

    def _proxy(self, proxy: Proxy) -> httpcore.Proxy:
        from importlib.util import find_spec

        if proxy.scheme.startswith("socks") and find_spec("socksio") is None:
            raise EnvironmentUnusableError("a SOCKS proxy needs the package socksio (pip install 'httpx[socks]')")
        return httpcore.Proxy(
            httpcore.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port, target="/"),
            auth=proxy.auth,
            ssl_context=self.context() if proxy.scheme == "https" else None,
        )

    def context(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = tls_context()
            return self._context

    def close(self) -> None:
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def reset_after_fork(self) -> None:
        """Two processes must not read from one connection. Closing the child's copies says nothing to the other side."""
        self._lock = threading.Lock()
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            for connection in pool.connections:
                connection.close()


_process = _Process()
forks.register(_process)
atexit.register(close)

_Kept: TypeAlias = "tuple[httpcore.AsyncConnectionPool, AsyncGenerator[None, None]]"
_loop: RunVar[dict[_Key, _Kept]] = RunVar("creditguard-connections")


async def _loop_pool(request: Request) -> httpcore.AsyncConnectionPool:
    """The running event loop's pool. A generator that the loop closes at its own end closes it."""
    try:
        pools = _loop.get()
    except LookupError:
        pools = {}
        _loop.set(pools)
    key = _key(request)
    kept = pools.get(key)
    if kept is None:
        pool = httpcore.AsyncConnectionPool(network_backend=AsyncBackend(), **_process.options(request))
        keeper = _closing(pool)
        await keeper.__anext__()  # does not wait for anything, so that no other task comes in between
        pools[key] = kept = pool, keeper
    return kept[0]


async def _closing(pool: httpcore.AsyncConnectionPool) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await pool.aclose()
