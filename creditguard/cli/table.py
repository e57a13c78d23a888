"""The answers of commands that list something: JSON, CSV, or a readable table. That is plain in a pipe or a file; on a terminal it
stays within the width, and is in colour where colours are welcome.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from creditguard.cli.output import answer
from creditguard.cli.parser import UsageError
from creditguard.rules.amounts import to_json
from creditguard.rules.text import printable
from creditguard.rules.text import width as width_of

Mark: TypeAlias = Literal["red", "yellow"]

_STYLES = {"red": "\x1b[31m", "yellow": "\x1b[33m", "bold": "\x1b[1m"}
_GAP = 2
_CUT = ".."
_SHORTEST = 8
"""Columns that a shortened text keeps at least, where its whole column is not left out."""


def asks_for_records(options: argparse.Namespace) -> bool:
    """Whether JSON or CSV is asked for. Raises UsageError if both are."""
    if options.json and options.csv:
        raise UsageError("--json and --csv are two forms of the same answer: choose one")
    return bool(options.json or options.csv)


def answer_records(options: argparse.Namespace, fields: Sequence[str], records: Sequence[Mapping[str, object]]) -> None:
    """Answer in the form that was asked for. `fields` are the columns of CSV: a field that is not known is empty there, and what is no
    text and no number is JSON."""
    if options.json:
        answer(json.dumps(records))
        return
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_csv_cell(record.get(field)) for field in fields] for record in records)
    answer(text.getvalue(), end="")


def _csv_cell(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    return value if value is None or type(value) in {int, float} else json.dumps(value)


def as_record(row: Any) -> dict[str, object]:
    """The fields of a NamedTuple as plain JSON values."""
    return {name: to_json(value) if isinstance(value, Decimal) else value for name, value in row._asdict().items()}


def show(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    spare: Sequence[str] = (),
    flexible: str = "",
    marks: Mapping[int, Mark] | None = None,
) -> None:
    """Answer with the table. Where a terminal is too narrow for it, the texts in the column `flexible` are shortened, and the `spare`
    columns left out, the first of them first. `marks` are the rows that stand out, by their index."""
    width = shutil.get_terminal_size().columns if is_terminal() else None
    styles = {-1: _STYLES["bold"], **{at: _STYLES[mark] for at, mark in (marks or {}).items()}}
    lines = render(header, rows, width=width, spare=spare, flexible=flexible).splitlines()
    if wants_colour():
        lines = [f"{styles[at]}{line}\x1b[0m" if at in styles else line for at, line in enumerate(lines, -1)]
    answer("\n".join(lines))


def is_terminal() -> bool:
    """Whether answers go to one."""
    try:
        return sys.stdout.isatty()
    except (ValueError, AttributeError):  # closed, or none at all: `answer` says so
        return False


def wants_colour() -> bool:
    """Whether answers go to a terminal whose user has nothing against colours."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    width: int | None = None,
    spare: Sequence[str] = (),
    flexible: str = "",
) -> str:
    """The table as text, without a trailing newline. None is shown as `-`."""
    cells = [list(header), *(["-" if cell is None else printable(f"{cell}") for cell in row] for row in rows)]
    columns = [_Column(name, each) for name, each in zip(header, map(list, zip(*cells, strict=True)), strict=True)]
    if width is not None:
        _fit(columns, width, spare, flexible)
    return "\n".join((" " * _GAP).join(column.cell(at) for column in columns).rstrip() for at in range(len(cells)))


class _Column:
    def __init__(self, name: str, cells: list[str]) -> None:
        self.name = name
        self._cells = cells
        self._right = all(_is_number(cell) for cell in cells[1:])
        self.width = max(map(width_of, cells))

    def cell(self, at: int) -> str:
        text = self._cells[at]
        if width_of(text) > self.width:
            while width_of(text) > self.width - len(_CUT):
                text = text[:-1]
            text += _CUT
        padding = " " * (self.width - width_of(text))
        return padding + text if self._right else text + padding


def _fit(columns: list[_Column], width: int, spare: Collection[str], flexible: str) -> None:
    """Leave out columns until the rest has room, with the flexible one as narrow as it may be; then give it the room there is."""
    elastic = next((column for column in columns if column.name == flexible), None)
    slack = max(elastic.width - _SHORTEST, 0) if elastic else 0
    leaving = list(spare)
    while _total(columns) - slack > width and leaving:
        name = leaving.pop(0)
        columns[:] = [column for column in columns if column.name != name]
    if elastic:
        elastic.width -= min(max(_total(columns) - width, 0), slack)


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def _is_number(cell: str) -> bool:
    cell = cell.removesuffix("%")
    return cell == "-" or cell.replace(".", "", 1).replace("-", "", 1).isdigit()
