"""An API key, and what a source needs of it beside the text."""

from __future__ import annotations

import re

from creditguard.rules.secret import GivenSecret

_KEY_LIKE = r"\bsk-[0-9a-z_-]{8,}"


class ApiKey(GivenSecret):
    """A key: hidden as any secret text, but taken along by a source that is sent to another process."""

    __slots__ = ("_pattern",)

    def __init__(self, key: str) -> None:
        super().__init__(key)
        exactly = f"{re.escape(key)}|" if len(key) >= 4 else ""  # "a" would take every a out of a message
        self._pattern = re.compile(exactly + _KEY_LIKE, re.IGNORECASE)

    def digest(self, *context: str) -> str:
        """12 hexadecimal digits that stand for the key in this context, and from which it cannot be had."""
        from hashlib import sha256

        return sha256("\0".join((*context, self._text)).encode()).hexdigest()[:12]

    def hidden(self, text: str) -> str:
        """The text without the key, and without what looks like any other API Mall key."""
        return self._pattern.sub("***", text)
