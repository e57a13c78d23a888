"""API Mall's protocol, without I/O: what an answer means.

    GET /api/v1/account/balances        Authorization: Bearer KEY
    200 {"success": true, "data": {"credits": 120, "api_credits": 120}, "request_id": "req_..."}
    4xx {"success": false, "error": {"code": "unauthorized", "message": "..."}, "request_id": "req_..."}

The balance is the whole number at /data/api_credits and nothing else: `credits` may be another wallet, and a field that is
missing or odd is an error, never a 0. It may be negative.

| answer | error |
|---|---|
| 401, 403 | AuthenticationError |
| 429 | RateLimited |
| any other 4xx, and 5xx | SourceError |
| 3xx (redirects are not followed), any other status, a 200 that is not understood | UnexpectedResponse |
| 200 with `success: false` | as the status that its `error.code` stands for; UnexpectedResponse if unknown |
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from creditguard.errors import AuthenticationError, BalanceUnavailable, RateLimited, SourceError, UnexpectedResponse
from creditguard.rules.amounts import EXACT, LARGEST, whole
from creditguard.rules.values import Balance
from creditguard.sources.api_key import ApiKey
from creditguard.sources.outcomes import LIMIT, Answer
from creditguard.sources.retries import TRIES, Setback

SOURCE = "apimall"
UNIT = "credits"
PATH = "/api/v1/account/balances"

CODES = {"unauthorized": 401, "forbidden": 403, "not_found": 404, "rate_limited": 429, "internal_error": 500}
"""What the gateway's error codes stand for, should one come with status 200."""

_QUOTED = 60
_MOST_PARTS = 1000
"""Objects and lists in an answer: there are a handful in any that is a balance."""
_REQUEST_ID = 100
_NOT_VISIBLE = re.compile("[^!-~]+")
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)


def judge(answer: Answer, where: str, key: ApiKey, now: datetime) -> Balance | Setback:
    """What the answer means: a balance, read at `now` (UTC), or why there is none. `where` names the gateway in errors."""
    document: dict[str, Any] = {}
    odd = _OddError("success is not true")
    try:
        document = _document(answer)
        if answer.status == 200 and document.get("success") is True:
            return Balance(_amount(document), UNIT, now, _request_id(answer, document, key), SOURCE)
    except _OddError as error:
        odd = error
    code, said = _said(document, key)
    status = answer.status if answer.status != 200 else CODES.get(code, 200)
    request_id = _request_id(answer, document, key)
    after = retry_after(answer.headers.get("retry-after", ""), now)

    def setback(kind: type[BalanceUnavailable], message: str, tries: int = 1) -> Setback:
        return Setback(kind(f"{where} {message}", request_id, answer.status, after), tries, after)

    told = f"({answer.status}{said})"
    if status == 200:
        return setback(UnexpectedResponse, f"gave an answer that is not a balance: {odd.shown(key)}{said}")
    if status == 401:
        return setback(AuthenticationError, f"refused the key: it is missing or invalid {told}")
    if status == 403:
        causes = "API access is not approved for this account, or this host is not the gateway"
        return setback(AuthenticationError, f"refused access: {causes} {told}")
    if status == 404:
        return setback(SourceError, f"has no balance to read at {PATH}: is it the gateway? {told}")
    if status == 429:
        wait = "" if after is None else f", and asks to wait {after:g} s"
        return setback(RateLimited, f"is limiting requests{wait} {told}", 2 if after is None else TRIES)
    if status >= 500 or status in {408, 425}:
        return setback(SourceError, f"could not answer {told}", TRIES)
    if status >= 400:
        return setback(SourceError, f"refused the request {told}")
    if status >= 300:
        target = _host(answer.headers.get("location", ""), key)
        return setback(UnexpectedResponse, f"redirects to {target}, which is not followed {told}")
    return setback(UnexpectedResponse, f"answered without a balance {told}")


def retry_after(value: str, now: datetime) -> float | None:
    """The seconds that a Retry-After header asks to wait, given in seconds or as an HTTP date; None if it says neither."""
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    if not value or len(value) > 40:
        return None
    from email.utils import parsedate_to_datetime  # 10 ms: only for those who need it

    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max((date - now).total_seconds(), 0.0)


class _OddError(Exception):
    """What is wrong with an answer, and the piece of it that shows it, as the server sent it."""

    def __init__(self, what: str, piece: str = "") -> None:
        super().__init__(what, piece)
        self.what = what
        self.piece = piece

    def shown(self, key: ApiKey) -> str:
        return f"{self.what}: {_shown(self.piece, key)}" if self.piece else self.what


def _document(answer: Answer) -> dict[str, Any]:
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", ""}:
        raise _OddError("it is compressed, which was not asked for", encoding)
    if answer.cut:
        raise _OddError(f"it goes on beyond {LIMIT // 1024} KiB")
    if not answer.body.strip():
        raise _OddError("it is empty")
    text = answer.body.decode("utf-8", "replace")
    try:
        # Counted first: where the host has raised its recursion limit, json would go on until the process crashes.
        if answer.body.count(b"[") + answer.body.count(b"{") > _MOST_PARTS:
            raise RecursionError
        document = _DECODER.decode(answer.body.decode("utf-8"))
    except RecursionError:
        raise _OddError("JSON of too many parts, or nested too deep") from None
    except (ValueError, ArithmeticError):  # ArithmeticError: an exponent beyond what Decimal knows
        raise _OddError("not JSON", text) from None
    if not isinstance(document, dict):
        raise _OddError("not a JSON object", text)
    return document


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_no_doubles)


def _amount(document: Mapping[str, Any]) -> Decimal:
    data = document.get("data")
    if not isinstance(data, dict) or "api_credits" not in data:
        raise _OddError("there is nothing at /data/api_credits")
    value = data["api_credits"]
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        piece = value if isinstance(value, str) else ""
        raise _OddError(f"/data/api_credits is {_KINDS[type(value)]}, not a number", piece)
    if isinstance(value, int):
        # Bounds first: turning an enormous int into a Decimal takes seconds.
        value = Decimal(value) if value.bit_length() < 64 else LARGEST * 2
    if not value.is_finite() or value.copy_abs() > LARGEST:
        raise _OddError("/data/api_credits is too large to be true")
    if value != value.to_integral_value(context=EXACT):
        raise _OddError("/data/api_credits is not a whole number", str(value))
    return whole(value.copy_abs() if value.is_zero() else value)


_KINDS = {bool: "true or false", type(None): "null", str: "text", list: "a list", dict: "an object"}


def _request_id(answer: Answer, document: Mapping[str, Any], key: ApiKey) -> str | None:
    given = document.get("request_id")
    if not isinstance(given, str) or not given:
        given = answer.headers.get("x-request-id", "")
    return key.hidden(_NOT_VISIBLE.sub("", given))[:_REQUEST_ID] or None


def _said(document: Mapping[str, Any], key: ApiKey) -> tuple[str, str]:
    """The gateway's own error code, and what it says, for people."""
    error = document.get("error")
    if not isinstance(error, dict):
        return "", ""
    code, message = (given if isinstance(given := error.get(name), str) else "" for name in ("code", "message"))
    return code, "".join(f": {_shown(part, key)}" for part in (code, message) if part)


def _host(location: str, key: ApiKey) -> str:
    """The host of a URL. Not its query or user name, which may hold a secret."""
    _, separator, rest = key.hidden(location).partition("://")
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    return _shown(authority, key) if separator and authority else "another place"


def _shown(text: str, key: ApiKey) -> str:
    """What a server sent, fit for a log: short, on one line, without the key."""
    shown = key.hidden(text)
    visible = _NOT_VISIBLE.sub("", shown)
    if key.hidden(visible) != visible:  # it came in pieces, as in an answer in UTF-16
        shown = key.hidden(visible)
    shown = shown if len(shown) <= _QUOTED else f"{shown[:_QUOTED]}..."
    return shown.encode("unicode_escape").decode("ascii")
