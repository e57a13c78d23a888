"""Scripted faults: what may be asked for, and which one a request gets. Thread-safe, no I/O.

A fault says which requests it applies to (`path`, `skip`, `times`) and what goes wrong. Faults are
tried in the order in which they were scripted, so `status=429, times=1` followed by `status=500,
times=1` is a 429, a 500, then plain sailing.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Mapping
from typing import TypedDict, cast

from creditguard.sandbox.fields import (
    BadField,
    flag,
    header,
    header_name,
    mapping,
    seconds,
    text,
    whole,
)
from creditguard.sandbox.paths import BALANCES

MAX_PAD = 256 * 1024 * 1024


class FaultSpec(TypedDict, total=False):
    """A fault. Every field may be left out."""

    # which requests
    path: str  # a path as `requests` counts it, or a prefix and `*`; default: the balance
    skip: int  # let this many requests pass first
    times: int  # then hit this many; default: until cleared
    # what is answered
    status: int  # below 300 with the usual data, else with the documented error body
    code: str  # error.code
    message: str  # error.message
    success: bool  # the envelope's flag, where it should not follow from the status
    data: object  # in place of the `data` object
    api_credits: object  # in place of that one number
    body: str | bytes  # these bytes and no envelope
    body_base64: str  # the same, for JSON
    content_type: str
    location: str  # the Location header
    headers: Mapping[str, str]  # added or replaced; a Content-Length too long cuts the answer short
    pad: int  # this many blanks after the body: still JSON, but big
    gzip: bool  # compress the body; with a large `pad`, a bomb
    # how it is answered
    delay: float  # seconds before the request is looked at
    drip: float  # seconds before each byte of the body
    drip_headers: bool  # drip the head as well
    reset: bool  # no answer: the connection is reset
    close: bool  # no answer: the connection is closed


_CHECKS = {
    "path": text,
    "code": text,
    "message": text,
    "success": flag,
    "content_type": header,
    "location": header,
    "gzip": flag,
    "delay": seconds,
    "drip": seconds,
    "drip_headers": flag,
    "reset": flag,
    "close": flag,
}
_RANGES = {"skip": (0, 10**6), "times": (1, 10**6), "status": (200, 999), "pad": (0, MAX_PAD)}
_WITHOUT_ANSWER = {"path", "skip", "times", "delay", "reset", "close"}


def parse(spec: object) -> FaultSpec:
    """A checked fault, its body as bytes. Raises BadField."""
    fault: dict[str, object] = {}
    for name, value in mapping("fault", spec).items():
        field = f"fault.{name}"
        if name in _CHECKS:
            fault[name] = _CHECKS[name](field, value)
        elif name in _RANGES:
            fault[name] = whole(field, value, *_RANGES[name])
        elif name in ("data", "api_credits"):
            fault[name] = _json(field, value)
        elif name == "headers":
            fault[name] = {
                header_name(field, key): header(f"{field}.{key}", content)
                for key, content in mapping(field, value).items()
            }
        elif name == "body":
            fault["body"] = value if isinstance(value, bytes) else _encode(text(field, value))
        elif name == "body_base64":
            fault["body"] = _base64(field, value)
        else:
            raise BadField(field, "is no fault; see FaultSpec")
    if not fault.keys() - {"path", "skip", "times"}:
        raise BadField("fault", "says nothing that goes wrong")
    if "drip_headers" in fault and "drip" not in fault:
        raise BadField("fault.drip_headers", "needs drip")
    for name in ("reset", "close"):
        if fault.get(name) and fault.keys() - _WITHOUT_ANSWER:
            raise BadField(f"fault.{name}", "sends no answer, so only delay goes with it")
    return cast("FaultSpec", cast("object", fault))


def _encode(content: str) -> bytes:
    return content.encode("utf-8", "surrogatepass")  # JSON can say half a character


def _json(field: str, value: object) -> object:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        raise BadField(field, "must be something JSON can say") from None
    return value


def _base64(field: str, value: object) -> bytes:
    try:
        return base64.b64decode(text(field, value), validate=True)
    except binascii.Error:
        raise BadField(field, "must be base64") from None


class _Entry:
    __slots__ = ("fault", "left", "skip")

    def __init__(self, fault: FaultSpec) -> None:
        self.fault = fault
        self.skip = fault.get("skip", 0)
        self.left = fault.get("times")


NO_FAULT: FaultSpec = {}


class FaultScript:
    """The faults to come."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._lock = threading.Lock()

    def add(self, fault: FaultSpec) -> None:
        with self._lock:
            self._entries.append(_Entry(fault))

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def take(self, path: str) -> FaultSpec:
        """The fault for this request, `NO_FAULT` if it gets none."""
        if not self._entries:  # nearly always, and then without the lock
            return NO_FAULT
        with self._lock:
            for entry in self._entries:
                wanted = entry.fault.get("path", BALANCES)
                if path != wanted and not (wanted[-1:] == "*" and path.startswith(wanted[:-1])):
                    continue
                if entry.skip:
                    entry.skip -= 1
                    continue
                if entry.left is not None:
                    entry.left -= 1
                    if not entry.left:
                        self._entries.remove(entry)
                return entry.fault
        return NO_FAULT

    def pending(self) -> list[dict[str, object]]:
        """What is still to come, for the state answer."""
        with self._lock:
            return [
                {
                    "path": entry.fault.get("path", BALANCES),
                    "skip": entry.skip,
                    "left": entry.left,
                    "fields": sorted(entry.fault.keys() - {"path", "skip", "times"}),
                }
                for entry in self._entries
            ]
