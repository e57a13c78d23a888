"""Text from elsewhere (arguments, files, answers, ledgers), made fit to be shown: no terminal obeys what is in it."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text, with an escape such as `\x1b` for each control, format and undecodable character. Of one line, therefore."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
