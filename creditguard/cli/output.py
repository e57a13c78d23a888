"""What the command line writes: answers to stdout, messages to stderr."""

from __future__ import annotations

import os
import sys

from creditguard.cli.screen import SCREEN, can_write
from creditguard.rules.text import printable

_PATIENCE_MS = 5_000
"""How long whoever reads stderr may take to make room for a message: by then signals may do nothing any more."""


class Unwritable(Exception):
    """An answer could not be written. The message says why."""


def answer(text: str, end: str = "\n") -> None:
    """Write what was asked for to stdout, at once. What stdout cannot encode is written as an escape.

    Raises BrokenPipeError if its reader has gone (`| head -1`), and Unwritable for all else: a full disk, a closed stdout.
    """
    stream = sys.stdout
    if stream is None:
        raise Unwritable("stdout is closed")
    encoding = stream.encoding or "utf-8"
    try:
        stream.write((text + end).encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError) as error:
        _let_go(stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise Unwritable((isinstance(error, OSError) and error.strerror) or str(error)) from None


def say(message: str) -> None:
    """One line on stderr, if there is one, and somebody reads it."""
    if can_write(_PATIENCE_MS):
        SCREEN.write(f"creditguard: {printable(message)}")


def flush_stderr() -> None:
    """What a full disk did not take is still in the buffer; Python would fail on it at exit, with a code of its own (120)."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        _let_go(2)


def _let_go(descriptor: int) -> None:
    """Nothing more is to be written there, not even at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
