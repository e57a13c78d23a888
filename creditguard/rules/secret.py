"""Text that does not show: an API key, or a ledger's URL that may hold a password."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class SecretText:
    """Equal to another one by its text, and shown by none of `repr`, `str`, iteration or pickling."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """The text itself: to be used in the very expression, and given no name. (Called as pydantic's SecretStr calls it.)"""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret is not pickled: a process reads its own settings")


class GivenSecret(SecretText):
    """What a program gave to a guard or a ledger itself: it goes along when that is sent to another process."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._text,)


def without_frames(work: Callable[[], T]) -> T:
    """Do the work; what comes out of it, an interrupt too, has lost the frames that it came through: they hold secrets."""
    handled = sys.exc_info()[1]
    try:
        return work()
    except BaseException as error:
        error.__context__ = handled
        raise error.with_traceback(None)  # noqa: B904 - it comes out as it is, but for its frames
