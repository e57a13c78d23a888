"""A key that does not show in logs, tracebacks and reprs."""

from __future__ import annotations

import re

_KEY_LIKE = r"\bsk-[0-9a-z_-]{8,}"


class Secret:
    """A key in an object whose repr hides it, and which has no fields or items to be shown one by one."""

    __slots__ = ("_key", "_pattern")

    def __init__(self, key: str) -> None:
        self._key = key
        exactly = f"{re.escape(key)}|" if len(key) >= 4 else ""  # "a" would take every a out of a message
        self._pattern = re.compile(exactly + _KEY_LIKE, re.IGNORECASE)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self._key,)

    def reveal(self) -> str:
        """The key itself: to be used in the very expression, and given no name."""
        return self._key

    def digest(self, *context: str) -> str:
        """12 hexadecimal digits that stand for the key in this context, and from which it cannot be had."""
        from hashlib import sha256

        return sha256("\0".join((*context, self._key)).encode()).hexdigest()[:12]

    def hidden(self, text: str) -> str:
        """The text without the key, and without what looks like any other API Mall key."""
        return self._pattern.sub("***", text)
