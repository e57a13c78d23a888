"""What comes of one request: an `Answer`, or a `Failure` that says why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

LIMIT = 64 * 1024
"""Bytes of an answer's body that are read at most."""


class Answer:
    """What the server said. Names of headers are found in lower case. `cut`: the body went on beyond LIMIT bytes.

    A server may echo the key in anything that it sends, so the repr leaves that out; and it is no named tuple, which is shown
    field by field, whatever its repr.
    """

    __slots__ = ("body", "cut", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, *, cut: bool = False) -> None:
        self.status: int = status
        self.headers: Mapping[str, str] = headers
        self.body: bytes = body
        self.cut: bool = cut

    def __repr__(self) -> str:
        return f"Answer({self.status}, {len(self.body)} bytes)"


class Failure(NamedTuple):
    """No answer, and why in a few words.

    `dropped`: a connection was cut off, as happens to one that was kept for too long; `timeout`: the time was up; `network`:
    any other trouble that may pass; `fatal`: what will not pass by itself, such as a certificate that is not trusted;
    `garbled`: what came was not HTTP.
    """

    why: str
    kind: Literal["dropped", "timeout", "network", "fatal", "garbled"]
