"""The connections of this process, kept open between readings: some per gateway, and for async some per event loop as well.

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
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import Any, TypeAlias, cast

import anyio
import h11
import httpcore
from anyio.lowlevel import RunVar

from creditguard.process import forks
from creditguard.sources._network import AsyncBackend, Backend, NoAddressError
from creditguard.sources.environment import EnvironmentUnusableError, Proxy, proxy_for, tls_context
from creditguard.sources.exchange import LIMIT, Failure, Reply, Request

KEPT_OPEN = 5.0
"""Seconds for which an idle connection may be used again: less than servers and firewalls allow, so it is hardly ever one that
the other side has given up."""
MOST_KEPT = 8
"""Idle connections to one gateway: what was opened for a burst of threads is not kept for one that reads now and then."""

_Key: TypeAlias = tuple[str, str, int]


def send(request: Request, timeout: float) -> Reply | Failure:
    """Send the request, and wait for the whole answer, within `timeout` seconds in all."""
    handled = sys.exc_info()[1]
    response: httpcore.Response | None = None
    failure: Failure | None = None
    body = bytearray()
    try:
        prepared = _prepared(request, time.monotonic() + timeout, timeout)
        prepared.stream = ()  # httpcore's empty body is one empty part, which takes as long to send as any other
        gateway = _process.gateway(request)
        connection = gateway.take()
        try:
            response = connection.handle_request(prepared)
            try:
                for part in response.iter_stream():
                    body += part
                    if len(body) > LIMIT:
                        break
            finally:
                response.close()
        finally:
            gateway.give_back(connection)
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
    url, headers = _checked(request)
    timeouts = {"connect": due, "read": due, "write": due, "pool": timeout}
    prepared = httpcore.Request(b"GET", url, extensions={"timeout": timeouts})
    prepared.headers = headers
    return prepared


@lru_cache(maxsize=16)
def _checked(request: Request) -> tuple[httpcore.URL, list[tuple[bytes, bytes]]]:
    """The parts of it that are the same each time, in the form in which h11 does not look through them each time."""
    url = httpcore.URL(
        scheme=request.scheme.encode(), host=request.host.encode(), port=request.port, target=request.target.encode()
    )
    headers = h11.Request(method=b"GET", target=url.target, headers=list(request.headers)).headers
    return url, cast("list[tuple[bytes, bytes]]", headers)


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


class _Direct:
    """Connections straight to a gateway. httpcore's pool takes a fifth of a reading's time to hand out the same.

    There is no lock: what is done to the deque is done in one piece, and a connection that was taken out of it belongs to one
    thread until it is put back.
    """

    def __init__(self, request: Request, context: ssl.SSLContext | None) -> None:
        self._origin = _checked(request)[0].origin
        self._context = context
        self._idle: deque[httpcore.HTTPConnection] = deque()
        self._all: weakref.WeakSet[httpcore.HTTPConnection] = weakref.WeakSet()
        self._closed = False

    def take(self) -> httpcore.HTTPConnection:
        """The one that was used last, if it is still good: so the others get old enough to be closed."""
        while self._idle:
            try:
                kept = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if not kept.has_expired():
                return kept
            kept.close()
        made = httpcore.HTTPConnection(
            self._origin, ssl_context=self._context, keepalive_expiry=KEPT_OPEN, network_backend=Backend()
        )
        self._all.add(made)
        return made

    def give_back(self, connection: httpcore.HTTPConnection | httpcore.ConnectionPool) -> None:
        """Keep it, unless something went wrong, or there is more of the answer to come: it is closed already then."""
        if not isinstance(connection, httpcore.HTTPConnection) or not connection.is_available():
            return
        self._idle.append(connection)
        if len(self._idle) > 1:
            self._weed()
        if self._closed:  # asked last, so that nothing can come back after `close` was through
            self.close()

    def _weed(self) -> None:
        # Looked at first and taken only to be closed: what two threads take out and put back would be one too many.
        try:
            while len(self._idle) > MOST_KEPT or self._idle[0].has_expired():
                self._idle.popleft().close()
        except IndexError:
            pass  # others have emptied it meanwhile

    def close(self) -> None:
        """What a thread is using is closed when that is done."""
        self._closed = True
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                break

    def abandon(self) -> None:
        """In a forked child, where the threads that used some of them are gone."""
        for connection in list(self._all):
            connection.close()


class _Proxied:
    """Connections through a proxy, which only httpcore's pool knows how to make."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._pool = httpcore.ConnectionPool(network_backend=Backend(), **options)

    def take(self) -> httpcore.ConnectionPool:
        return self._pool

    def give_back(self, connection: object) -> None:
        """The pool does it by itself."""

    def close(self) -> None:
        self._pool.close()

    def abandon(self) -> None:
        for connection in self._pool.connections:
            connection.close()


class _Process:
    """The connections that the threads of this process share, and the one TLS context."""

    def __init__(self) -> None:
        self._gateways: dict[_Key, _Direct | _Proxied] = {}
        self._proxies: dict[_Key, str] = {}
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def gateway(self, request: Request) -> _Direct | _Proxied:
        key = _key(request)
        gateway = self._gateways.get(key)
        if gateway is None:
            options = self.options(request)
            made = _Proxied(options) if options["proxy"] else _Direct(request, options["ssl_context"])
            with self._lock:
                gateway = self._gateways.setdefault(key, made)
        return gateway

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
            gateways, self._gateways = self._gateways, {}
        for gateway in gateways.values():
            gateway.close()

    def reset_after_fork(self) -> None:
        """Two processes must not read from one connection. Closing the child's copies says nothing to the other side."""
        self._lock = threading.Lock()
        gateways, self._gateways = self._gateways, {}
        for gateway in gateways.values():
            gateway.abandon()


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
