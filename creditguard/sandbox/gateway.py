"""The gateway as an object: start it, move its account, see what was asked. And `serve`."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from creditguard.sandbox.account import Account
from creditguard.sandbox.api import Api
from creditguard.sandbox.control import apply
from creditguard.sandbox.faults import FaultScript, FaultSpec
from creditguard.sandbox.fields import LIMIT, whole
from creditguard.sandbox.server import Server

if TYPE_CHECKING:
    import ssl
    from collections import Counter
    from pathlib import Path

    from typing_extensions import Self, Unpack  # for type checkers; nothing is imported when this runs


def _lever(name: str, meaning: str) -> Any:
    """What the account has under that name, and control sets."""
    return property(attrgetter(f"_account.{name}"), lambda self, value: self.control(**{name: value}), doc=meaning)


class Gateway:
    """A gateway on loopback with a pool of its own. Use it in a `with`, or call `start` and `stop`.

    `key` is made up at random unless given. With `port=0` the system picks a free port; a gateway
    that is stopped and started again comes back at the same address, with its pool as it was.
    """

    def __init__(
        self,
        credits: int = 120,  # noqa: A002 - the builtin of this name is for the prompt
        *,
        key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.key: str = key or f"sk-{secrets.token_hex(24)}"
        self._account = Account(whole("credits", credits, -LIMIT))
        self._faults = FaultScript()
        self._api = Api(self._account, self._faults, self.key)
        self._host, self._port, self._tls = host, port, tls
        self._server: Server | None = None

    def __repr__(self) -> str:  # the key stays out of logs and test reports
        return f"<Gateway {self._host}:{self._port} credits={self.credits}>"

    # Running

    def start(self) -> Self:
        if self._server is None:
            self._server = Server(self._api, self._host, self._port, self._tls)
            self._port = self._server.port
        return self

    def stop(self) -> None:
        """Hang up on everybody and free the port. Does nothing when stopped already."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens, or listened."""
        if not self._port:
            raise RuntimeError("the gateway has not been started")
        scheme = "http" if self._tls is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}"

    # The pool

    @property
    def credits(self) -> int:
        """The pool as it is now, whatever the balance request shows."""
        return self._account.credits

    def set_credits(self, amount: int) -> None:
        """Start over with this pool. Shown at once, whatever the lag."""
        self.control(set_credits=amount)

    def top_up(self, amount: int) -> None:
        self.control(top_up=amount)

    def drain(self, amount: int) -> None:
        """Somebody else spends. Stops at 0 unless `allow_negative`."""
        self.control(drain=amount)

    def lag(self, readings: int) -> None:
        """From now on the balance shown is the pool as it was this many readings ago."""
        self.control(lag=readings)

    def schedule(
        self,
        *,
        top_up: int | None = None,
        drain: int | None = None,
        at_reading: int | None = None,
        after: float | None = None,
    ) -> None:
        """Top up or drain later: so that the `at_reading`-th balance reading from now is the first
        to come after it, or `after` so many seconds."""
        asked = {"top_up": top_up, "drain": drain, "at_reading": at_reading, "after": after}
        self.control(schedule={name: value for name, value in asked.items() if value is not None})

    # Tasks

    submit_cost: int = _lever("submit_cost", "What a submit costs that names no `credits`. 8 at first.")
    task_seconds: float = _lever("task_seconds", "How long a task is pending. 0 at first: done when first looked at.")
    refund_delay: float = _lever("refund_delay", "Seconds from a task's failure to its refund. 0 at first: at once.")
    allow_negative: bool = _lever("allow_negative", "Whether submits and drains may overdraw the pool.")

    def fail_next_tasks(self, count: int) -> None:
        """The next so many submits become failed tasks, whose credits are refunded."""
        self.control(fail_next_tasks=count)

    # Faults

    def fault(self, **spec: Unpack[FaultSpec]) -> None:
        """Script a fault; see FaultSpec. Several are used up in the order of scripting."""
        self.control(fault=spec)

    def clear_faults(self) -> None:
        self.control(clear_faults=True)

    # Looking

    @property
    def requests(self) -> Counter[str]:
        """How often each path was asked for. Tasks count together, as `/api/v1/images/{task_id}`;
        control does not count."""
        return self._api.requests

    @property
    def balance_reads(self) -> int:
        """How often the balance was shown. What a fault answered is in `requests` only."""
        return self._account.balance_reads

    @property
    def tasks(self) -> list[dict[str, object]]:
        """Every task, as the protocol shows it."""
        return self._account.tasks()

    def state(self) -> dict[str, object]:
        """As GET /_sandbox/state."""
        return self._api.state()

    def control(self, **commands: object) -> None:
        """As POST /_sandbox/control. Raises BadField (a ValueError), and then changed nothing."""
        apply(self._account, self._faults, commands)


def environment(gateway: Gateway, ledger: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that lead creditguard to the gateway, and past a proxy, which cannot reach this machine's loopback."""
    hosts = {name: inherited.get(name, "") for name in ("NO_PROXY", "no_proxy")}
    return {
        "CREDITGUARD_BASE_URL": gateway.url,
        "APIMALL_API_KEY": gateway.key,
        "CREDITGUARD_LEDGER": f"sqlite:///{ledger}",
        **{name: each if each == "*" else f"{each},127.0.0.1".lstrip(",") for name, each in hosts.items()},
    }


def serve(
    port: int = 0,
    credits: int = 120,  # noqa: A002 - as for Gateway
    *,
    key: str | None = None,
    host: str = "127.0.0.1",
    announce: Callable[[Gateway], object] = lambda _: None,
) -> None:
    """Run a gateway until SIGINT or SIGTERM, which it takes over meanwhile: main thread only.

    Prints nothing: `announce` is called once with the gateway when it listens.
    """
    # A signal handler may write to a socket at any moment; to take a lock might be for ever.
    wake, poke = socket.socketpair()
    with wake, poke:

        def end(*_: object) -> None:
            poke.send(b"x")

        previous = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Gateway(credits, key=key, host=host, port=port) as gateway:
                announce(gateway)
                wake.recv(1)
        finally:
            for each, handler in previous.items():
                signal.signal(each, handler)
