"""API Mall as a balance source. Its rules are in `apimall_checks`, `apimall_answers` and `retries`; `transport` sends."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from functools import partial

from creditguard._version import __version__
from creditguard.process.background import seconds
from creditguard.rules.secret import SecretText, without_frames
from creditguard.rules.values import Balance
from creditguard.sources.api_key import ApiKey
from creditguard.sources.apimall_answers import PATH, SOURCE, UNIT, judge
from creditguard.sources.apimall_checks import DEFAULT_BASE_URL, check_base_url, check_key
from creditguard.sources.outcomes import Answer
from creditguard.sources.retries import Setback, read_with_retries


class ApiMall:
    """The balance of the API Mall account that `key` belongs to.

    `account` is a digest of source, gateway and key, from which the key cannot be had: the same for every process that uses
    the same key, and another one for another key of the same account. May be shared by threads and forked children.
    Raises ConfigurationError for a key or a URL that cannot be used. Loads nothing heavy before the first reading.
    """

    name = SOURCE
    unit = UNIT
    debits_at_once = True
    """Inferred from the documents, where the answer to a submit carries `remaining_credits`; not tried on the real account."""
    account: str = ""
    _url: str = ""  # both for the repr, while the arguments are still being checked

    def __init__(self, key: str | SecretText, base_url: str = DEFAULT_BASE_URL) -> None:
        self._key = ApiKey(key.get_secret_value() if isinstance(key, SecretText) else key)
        del key  # the traceback of an error may be shown with the variables of its frames
        check_key(self._key.get_secret_value())
        try:
            self._url = check_base_url(base_url)
        finally:
            del base_url  # there may be a password in it
        self._where = self._url.split("/")[2]
        self.account = self._key.digest(SOURCE, self._url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(account={self.account!r}, base_url={self._url!r})"

    def read(self, timeout: float) -> Balance:
        """The balance now, within `timeout` seconds in all: name lookup, retries and pauses included.

        Raises AuthenticationError, RateLimited, SourceError or UnexpectedResponse: see `creditguard.errors`.
        """
        from creditguard.sources.transport import get

        ask = partial(get, self._url + PATH, self._headers)
        return read_with_retries(
            ask, self._judge, self._where, timeout, clock=seconds, sleep=time.sleep, jitter=_jitter
        )

    def _headers(self) -> dict[str, str]:
        """What is sent, the key among it. `identity`: a compressed answer could be a small one that unpacks to gigabytes."""
        return {
            "Authorization": f"Bearer {self._key.get_secret_value()}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"creditguard/{__version__}",
        }

    def _judge(self, answer: Answer) -> Balance | Setback:
        return judge(answer, self._where, self._key, datetime.now(timezone.utc))


_shared: dict[tuple[SecretText, str], ApiMall] = {}


def shared(key: SecretText, base_url: str) -> ApiMall:
    """The one source that a process has for a key and a gateway: by it guards share their readings."""
    place = key, base_url
    return _shared.get(place) or _shared.setdefault(place, without_frames(partial(ApiMall, key, base_url)))


def _jitter() -> float:
    """From 0 to 1. Not from `random`: a job that seeded it gets its own numbers."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
