"""Text from elsewhere (arguments, files, answers, ledgers), made fit to be shown: no terminal obeys what is in it."""

from __future__ import annotations

from unicodedata import combining, east_asian_width


def printable(text: str) -> str:
    r"""The text, with an escape such as `\x1b` for each control, format and undecodable character. Of one line, therefore."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def width(text: str) -> int:
    """The columns of a terminal that a text takes: two for a wide character, none for what is put over another."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text)


def shortened(text: str, columns: int, end: str) -> str:
    """The text if so many columns have room for it, else its beginning and the `end`."""
    if width(text) <= columns:
        return text
    while text and width(text) > columns - len(end):
        text = text[:-1]
    return text + end
