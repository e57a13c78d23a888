"""The answers of commands that list something: JSON, CSV, or a readable table. The table is plain in a pipe or a file; on a terminal
it stays within the width, and is in colour where colours are welcome.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from creditguard.cli.output import answer
from creditguard.rules.amounts import to_json
from creditguard.rules.text import printable, shortened
from creditguard.rules.text import width as width_of

Mark: TypeAlias = Literal["red", "yellow"]

_STYLES = {"red": "\x1b[31m", "yellow": "\x1b[33m", "bold": "\x1b[1m"}
_CHUNK = 1 << 16
_GAP = 2
_CUT = ".."
_ELASTIC = "JOB"
"""The column whose texts are shortened where a terminal is too narrow."""
_SHORTEST = 8
"""Columns that a shortened text keeps at least."""


def answer_records(options: argparse.Namespace, fields: Sequence[str], records: Iterable[Mapping[str, object]]) -> None:
    """Answer in JSON or in CSV, as was asked. `fields` are the columns of CSV: a field that is not known is empty there, and what is no
    text and no number is JSON. CSV is answered while records come, and never held as a whole."""
    if options.json:
        answer(json.dumps(list(records)))
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    for record in records:
        writer.writerow([_csv_cell(record.get(field)) for field in fields])
        if text.tell() >= _CHUNK:
            answer(text.getvalue(), end="")
            text.seek(0)
            text.truncate()
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
    spare: Sequence[str],
    marks: Mapping[int, Mark] | None = None,
) -> None:
    """Answer with the table, in which None is `-`. Where a terminal is too narrow for it, the jobs' names are shortened, and the
    `spare` columns left out, the first of them first. `marks` are the rows that stand out, by their index."""
    cells = [list(header), *(["-" if cell is None else printable(f"{cell}") for cell in row] for row in rows)]
    columns = [_Column(name, each) for name, each in zip(header, map(list, zip(*cells, strict=True)), strict=True)]
    if is_terminal():
        _fit(columns, shutil.get_terminal_size().columns, spare)
    lines = [(" " * _GAP).join(column.cell(at) for column in columns).rstrip() for at in range(len(cells))]
    if wants_colour():
        styles = {-1: _STYLES["bold"], **{at: _STYLES[mark] for at, mark in (marks or {}).items()}}
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


class _Column:
    def __init__(self, name: str, cells: list[str]) -> None:
        self.name = name
        self._cells = cells
        self._right = all(_is_number(cell) for cell in cells[1:])
        self.width = max(map(width_of, cells))

    def cell(self, at: int) -> str:
        text = shortened(self._cells[at], self.width, _CUT)
        padding = " " * (self.width - width_of(text))
        return padding + text if self._right else text + padding


def _fit(columns: list[_Column], width: int, spare: Sequence[str]) -> None:
    """Leave out columns until the rest has room, with the elastic one as narrow as it may be; then give it the room there is."""
    elastic = next((column for column in columns if column.name == _ELASTIC), None)
    slack = max(elastic.width - _SHORTEST, 0) if elastic else 0
    for name in spare:
        if _total(columns) - slack > width:
            columns[:] = [column for column in columns if column.name != name]
    if elastic:
        elastic.width -= min(max(_total(columns) - width, 0), slack)


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def _is_number(cell: str) -> bool:
    cell = cell.removesuffix("%")
    return cell == "-" or cell.replace(".", "", 1).replace("-", "", 1).isdigit()
