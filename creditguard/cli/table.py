"""Rows as a readable table: columns aligned, numbers to the right, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from creditguard.rules.text import printable


def render(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The table as text, without a trailing newline. None is shown as `-`."""
    cells = [list(header), *(["-" if cell is None else printable(f"{cell}") for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(_is_number(row[at]) for row in cells[1:]) for at in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).replace("-", "", 1).isdigit()
