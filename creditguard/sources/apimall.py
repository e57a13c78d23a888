"""API Mall as a balance source. The rules are in `apimall_wire` and `retries`; this drives them, in a thread or in a task."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone

from creditguard._version import __version__
from creditguard.rules.values import Balance
from creditguard.sources import retries
from creditguard.sources.apimall_checks import check_key, gateway
from creditguard.sources.apimall_wire import SOURCE, UNIT, Secret, build_request, judge
from creditguard.sources.exchange import Reply, Send

DEFAULT_BASE_URL = "https://gateway.apimall.ai"


class ApiMall:
    """The balance of the API Mall account that `key` belongs to.

    `account` is a digest of source, gateway and key, from which the key cannot be had: the same for every process that uses
    the same key, and another one for another key of the same account. May be shared by threads, tasks and forked children.
    Raises ConfigurationError for a key or a URL that cannot be used. Loads nothing heavy before the first reading.
    """

    name = SOURCE
    unit = UNIT

    def __init__(self, key: str, base_url: str = DEFAULT_BASE_URL) -> None:
        self._secret = Secret(check_key(key))
        place = gateway(base_url)
        self._url = place.url
        self._where = place.netloc
        self._request = build_request(place, self._secret, __version__)
        self.account: str = self._secret.digest(SOURCE, self._url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(account={self.account!r}, base_url={self._url!r})"

    def read(self, timeout: float) -> Balance:
        """The balance now, within `timeout` seconds in all: name lookup, retries and pauses included.

        Raises AuthenticationError, RateLimited, SourceError or UnexpectedResponse: see `creditguard.errors`.
        """
        from creditguard.sources.connection import send

        steps = self._steps(timeout)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Send):
                    step = steps.send(send(self._request, step.timeout))
                else:
                    time.sleep(step.seconds)
                    step = steps.send(None)
        except StopIteration as stop:
            balance: Balance = stop.value
            return balance

    async def aread(self, timeout: float) -> Balance:
        """As `read`, without blocking the event loop, under asyncio or trio."""
        import anyio

        from creditguard.sources.connection import asend

        steps = self._steps(timeout)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Send):
                    step = steps.send(await asend(self._request, step.timeout))
                else:
                    await anyio.sleep(step.seconds)
                    step = steps.send(None)
        except StopIteration as stop:
            balance: Balance = stop.value
            return balance

    def _steps(self, timeout: float) -> retries.Steps:
        return retries.reading(self._judge, self._where, timeout, monotonic=time.monotonic, jitter=_jitter)

    def _judge(self, reply: Reply) -> Balance | retries.Setback:
        return judge(reply, self._where, self._secret, datetime.now(timezone.utc))


def _jitter() -> float:
    """From 0 to 1. Not from `random`: a job that seeded it gets its own numbers."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
