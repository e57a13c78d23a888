"""The words between the rules of a reading (no I/O) and the drivers that send its requests.

Named tuples, since a dataclass takes ten times as long to define: seven of them would cost a cold start 3 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

LIMIT = 64 * 1024
"""Bytes of an answer's body that are read at most."""


class Request(NamedTuple):
    """A GET. The headers hold the key, so the repr leaves them out."""

    scheme: str
    host: str
    port: int
    target: str
    headers: tuple[tuple[bytes, bytes], ...]

    def __repr__(self) -> str:
        return f"Request({self.scheme}://{self.host}:{self.port}{self.target})"


class Send(NamedTuple):
    """Send the request; the answer, a Reply or a Failure, is due within so many seconds."""

    timeout: float


class Wait(NamedTuple):
    """Wait before the next step."""

    seconds: float


class Reply(NamedTuple):
    """An answer. Names of headers are in lower case. `cut`: the body went on beyond LIMIT bytes.

    A server may echo the key in anything that it sends, so the repr leaves that out.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.body)} bytes)"


class Failure(NamedTuple):
    """No answer, and why in a few words.

    `dropped`: a connection was cut off, as happens to one that was kept for too long; `timeout`: the time was up; `network`:
    any other trouble that may pass; `fatal`: what will not pass by itself, such as a certificate that is not trusted;
    `garbled`: what came was not HTTP.
    """

    why: str
    kind: Literal["dropped", "timeout", "network", "fatal", "garbled"]
