"""One GET through httpx's transport, within one deadline over name lookup, connecting, TLS, headers and body.

The transport is called, not the client: so no request is logged, no redirect is followed, and no exception carries a request.

httpx's timeouts hold for each operation alone: a server that sends a byte a second is never too slow for them, each address of
a name has the whole of them, and a name lookup has none. So each read on a connection is given the time that is left then,
and a connection is opened in a thread of its own, which is left behind if it outlasts the deadline.

Where a kept connection waits, the calling thread sends the request, unless it is the main thread: signal handlers run there,
and what they raise would be taken for trouble with the network, or leave a lock of httpx's taken.
"""

from __future__ import annotations

import _thread
import contextvars
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeAlias, cast

import httpx

from creditguard.process.background import seconds
from creditguard.rules.secret import without_frames
from creditguard.sources.environment import EnvironmentUnusableError, proxy_for, tls_context
from creditguard.sources.outcomes import LIMIT, Answer, Failure

KEPT_OPEN = 5.0
"""Seconds for which an idle connection may be used again: less than servers and firewalls allow, so it is hardly ever one that
the other side has given up."""
MOST_KEPT = 4
MOST_LEFT_BEHIND = 4
GRACE = 0.1
"""Seconds beyond the deadline for which a thread that connects may say what it knows by then."""
ADDRESSES = 3
"""As many addresses of a name are tried within the deadline if none of them answers."""
FOREVER = 1e6
"""Seconds that a lock and a socket can still count."""

Headers: TypeAlias = "Callable[[], dict[str, str]]"

_NOTHING = httpx.ByteStream(b"")
"""What a GET sends beside its headers. Given so, httpx has nothing to find out about it."""

_here = threading.local()
"""`exchange`: the one that this thread is performing."""


def get(url: str, headers: Headers, timeout: float) -> Answer | Failure:
    """What the server says to a GET of `url`, within `timeout` seconds in all, or why it says nothing.

    `headers` is called when they are sent. Nothing that httpx raises comes out, and no frame of it, which holds the headers.
    """
    due = seconds() + min(timeout, FOREVER)
    try:
        route = _process.route(url)
    except EnvironmentUnusableError as error:
        return Failure(str(error), "fatal")
    if route.is_connected() and _thread.get_ident() != threading.main_thread().ident:
        exchange = _Exchange(route, headers, due, may_connect=False)
        without_frames(exchange.perform)
        if exchange.outcome:
            return exchange.outcome
    return _process.beside(_Exchange(route, headers, due))


class _NotConnectedError(Exception):
    """The kept connection was gone after all, and this thread may not open another."""


class _Exchange:
    """One request, and what comes of it."""

    def __init__(self, route: _Route, headers: Headers, due: float, *, may_connect: bool = True) -> None:
        self.due = due
        self.outcome: Answer | Failure | None = None
        self.ended = False
        self._route = route
        self._headers = headers
        self._may_connect = may_connect
        self._received = bytearray()

    def perform(self) -> None:
        """Leaves `outcome` None if there is no connection and this thread may not open one."""
        outer, _here.exchange = getattr(_here, "exchange", None), self
        response: httpx.Response | None = None
        failure: Failure | None = None
        body = bytearray()
        try:
            response = self._route.transport.handle_request(self._request())
            with closing(response):
                for part in cast("httpx.SyncByteStream", response.stream):
                    body += part
                    if len(body) > LIMIT:
                        break
                self._keep_or_close(response, len(body))
        except _NotConnectedError:
            return
        except (httpx.TransportError, UnicodeError) as error:
            failure = _explain(error, self._route.via)
        finally:
            _here.exchange = outer
        cut = len(body) > LIMIT
        if response is not None and (response.status_code != 200 or cut or not failure):
            # The body of anything but a 200 does not matter: the status says enough.
            self.outcome = Answer(response.status_code, response.headers, bytes(body[:LIMIT]), cut=cut)
        else:
            self.outcome = failure

    def _request(self) -> httpx.Request:
        left = self._left()
        timeouts = {"connect": left / ADDRESSES, "read": left, "write": left, "pool": left}
        extensions = {"timeout": timeouts, "trace": self._trace}
        return httpx.Request(
            "GET",
            self._route.url,
            headers={"Host": self._route.host, **self._headers()},  # in no variable of ours: there is the key
            stream=_NOTHING,
            extensions=extensions,
        )

    def _left(self) -> float:
        left = self.due - seconds()
        if left <= 0:
            raise httpx.ReadTimeout("")
        return left

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore calls this with each step that it takes."""
        if event.endswith("connect_tcp.started") and not self._may_connect:
            raise _NotConnectedError
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            stream = info["return_value"]
            read = stream.read
            stream.read = lambda size, timeout=None: _here.exchange.receive(read, size)  # noqa: ARG005 - older than the read
            self._route.streams.add(stream)
            self._received.clear()

    def receive(self, read: Callable[[int, float], bytes], size: int) -> bytes:
        """What a read of the connection gives, within the time that is left by now."""
        data = read(size, self._left())
        self._received += data
        if len(self._received) > 16 * LIMIT:
            raise httpx.RemoteProtocolError("")
        return data

    def _keep_or_close(self, response: httpx.Response, length: int) -> None:
        """Close the connection if anything follows the answer: it would be taken for the next one."""
        stream = response.extensions.get("network_stream")
        if stream is None:  # a test's own transport
            return
        _, _, rest = self._received.partition(b"\r\n\r\n")
        end = rest.find(b"0\r\n\r\n") + 5 if "transfer-encoding" in response.headers else length
        if len(rest) == end and self._received.count(b"HTTP/1.") == 1:
            self._route.keep(stream)
        else:
            stream.write = _refuse  # another thread may take the connection in the moment before the pool drops it
            stream.close()


def _refuse(*_: object, **__: object) -> None:
    raise httpx.WriteError("")


class _Route:
    """The way to one URL, straight or through the environment's proxy, and the connections that are kept to it."""

    def __init__(self, url: str) -> None:
        self.url = httpx.URL(url)
        self.host = self.url.netloc.decode("ascii")
        self.streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self._kept: tuple[Any, float] = None, 0.0
        proxy = proxy_for(self.url)
        self.via = f" (through the proxy {proxy.url.netloc.decode()})" if proxy else ""
        # TLS within TLS is read in several steps, each of which would be given all the time that is left.
        self._read_in_steps = proxy is not None and proxy.url.scheme == "https"
        try:
            self.transport = httpx.HTTPTransport(
                verify=tls_context() if self.url.scheme == "https" else cast("Any", None),  # no time for unused TLS
                limits=httpx.Limits(max_keepalive_connections=MOST_KEPT, keepalive_expiry=KEPT_OPEN),
                proxy=proxy,
            )
        except ImportError:
            why = "a SOCKS proxy needs the package socksio (pip install 'httpx[socks]')"
            raise EnvironmentUnusableError(why) from None

    def keep(self, stream: Any) -> None:
        self._kept = stream, seconds() + KEPT_OPEN

    def is_connected(self) -> bool:
        """Whether the connection that was kept last still waits, if no other thread takes it."""
        stream, until = self._kept
        return seconds() < until and not self._read_in_steps and not stream.get_extra_info("is_readable")


class _Process:
    """The connections of one process, and the threads that it left behind. A forked child starts with neither."""

    def __init__(self) -> None:
        self._routes: dict[str, _Route] = {}
        self._left_behind: set[_Exchange] = set()

    def route(self, url: str) -> _Route:
        return self._routes.get(url) or self._routes.setdefault(url, _Route(url))

    def beside(self, exchange: _Exchange) -> Answer | Failure:
        """Perform the exchange in another thread, and wait for it as long as its deadline allows."""
        if len(self._left_behind) >= MOST_LEFT_BEHIND:
            return Failure(f"{MOST_LEFT_BEHIND} earlier readings still hang", "fatal")
        done = _thread.allocate_lock()
        done.acquire()

        def perform() -> None:
            try:
                exchange.perform()
            except Exception as error:
                exchange.outcome = Failure(type(error).__name__, "fatal")
            finally:
                exchange.ended = True
                self._left_behind.discard(exchange)
                done.release()

        try:
            _thread.start_new_thread(contextvars.copy_context().run, (perform,))
        except RuntimeError:
            return Failure("no thread could be started", "network")
        try:
            done.acquire(timeout=max(exchange.due - seconds(), 0.0) + GRACE)
        finally:
            self._left_behind.add(exchange)
            if exchange.ended:
                self._left_behind.discard(exchange)
        return exchange.outcome or Failure("no answer in time", "timeout")

    def close(self) -> None:
        """Without the locks of httpx, which another thread of a forked parent may have held."""
        for route in self._routes.values():
            for stream in list(route.streams):
                stream.close()


_process = _Process()


def close() -> None:
    """Close the connections of this process. The next reading opens another."""
    global _process
    given_up, _process = _process, _Process()
    given_up.close()


os.register_at_fork(after_in_child=close)


def _explain(error: Exception, via: str) -> Failure:
    """What went wrong, in words of our own: those of the libraries may quote what the server sent."""
    if isinstance(error, httpx.TimeoutException):
        return Failure("no answer in time", "timeout")
    if isinstance(error, httpx.ProxyError):
        status = str(error)[:3]
        return Failure(f"refused with {status}{via}" if status.isdigit() else f"refused{via}", "network")
    if isinstance(error, httpx.RemoteProtocolError):
        cut_off = str(error).startswith(("Server disconnected", "peer closed"))
        return Failure(f"the connection was cut off{via}", "dropped") if cut_off else Failure("not HTTP", "garbled")
    cause: BaseException | None = error
    while cause and not isinstance(cause, (OSError, UnicodeError)):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, (UnicodeError, socket.gaierror)):
        return Failure(f"the name could not be resolved{via}", "network")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Failure(f"its certificate was not trusted ({cause.verify_message})", "fatal")
    if isinstance(cause, ssl.SSLError):
        why = f"TLS failed ({cause.reason or type(cause).__name__})"
    elif isinstance(cause, OSError):
        why = os.strerror(cause.errno or 0).lower()
    else:
        why = type(error).__name__
    return Failure(why + via, "dropped" if isinstance(error, (httpx.ReadError, httpx.WriteError)) else "network")
