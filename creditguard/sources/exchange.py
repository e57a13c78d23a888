"""The words between the rules of a reading (no I/O) and the drivers that send its requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LIMIT = 64 * 1024
"""Bytes of an answer's body that are read at most."""


@dataclass(frozen=True, slots=True)
class Request:
    """A GET. The headers hold the key, so they are left out of the repr."""

    scheme: str
    host: str
    port: int
    target: str
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request; the answer, a Reply or a Failure, is due within so many seconds."""

    timeout: float


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Names of headers are in lower case. `cut`: the body broke off, or went on beyond LIMIT bytes.

    What a server sends may echo the key: it is left out of the repr.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer, and why in a few words.

    `dropped`: a connection was cut off, as happens to one that was kept for too long; `timeout`: the time was up; `network`:
    any other trouble that may pass; `fatal`: what will not pass by itself, such as a certificate that is not trusted;
    `garbled`: what came was not HTTP.
    """

    why: str
    kind: Literal["dropped", "timeout", "network", "fatal", "garbled"]
