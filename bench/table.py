"""The lines of the table, and how they are printed: one by one, as soon as they are known."""

from __future__ import annotations

from dataclasses import dataclass

from measure import Comparison, Noise

_WIDTHS = {"what": 42, "floor": 32, "ratio": 8, "A/A noise": 18, "target": 18, "met": 3, "in this run": 0}


@dataclass(frozen=True)
class Line:
    """What was measured, against which floor. Without a target a line is for information."""

    what: str
    floor: str
    ratio: float
    noise: Noise
    target: str = ""
    met: bool | None = None
    detail: str = ""


@dataclass(frozen=True)
class Skipped:
    """A line that could not be measured here, and why."""

    what: str
    why: str


def line(
    what: str,
    floor: str,
    found: Comparison,
    name: str,
    most: float | None = None,
    *,
    per: int = 1,
    own: float | None = None,
    total: float | None = None,
) -> Line:
    """A line whose target, if it has one, is a ratio of at most `most`, and so many milliseconds of a call: `own` beyond the
    floor, or in `total`."""
    ratio, detail = found.ratio(name), found.milliseconds(name, per)
    if most is None:
        return Line(what, floor, ratio, found.noise, detail=detail)
    target, met = f"<= {most:.2f}x", ratio <= most
    if own is not None:
        ours = found.own(name, per)
        target, met, detail = f"{target}, {own:g} ms", met and ours <= own, f"{detail}: {ours:.3g} ms of our own"
    if total is not None:
        target, met = f"{target}, {total:g} ms", met and found.per_call(name, per) <= total
    return Line(what, floor, ratio, found.noise, target, met, detail)


def show_header() -> None:
    _show(*_WIDTHS)
    _show(*("-" * (width or 11) for width in _WIDTHS.values()))


def show(found: Line | Skipped) -> None:
    if isinstance(found, Skipped):
        _show(found.what, "", "skipped", "", "", "", found.why)
        return
    met = {None: "", True: "yes", False: "NO"}[found.met]
    _show(found.what, found.floor, f"{found.ratio:.2f}x", str(found.noise), found.target, met, found.detail)


def _show(*cells: str) -> None:
    padded = (cell.ljust(width) for cell, width in zip(cells, _WIDTHS.values(), strict=True))
    print("| " + " | ".join(padded) + " |", flush=True)
