"""Speed, as ratios inside one run: `make bench`, or `make bench BENCH_ARGS="--quick guard import"` for some of the rows.

Each line names what was measured, the floor that it is held against, their ratio (the median over interleaved rounds), and
the A/A noise: the floor against itself in the same run, as the median and the middle half of the rounds. A ratio says nothing
that is finer than that. Targets are printed, and never fail the run: a machine that is busy is not a bug.
"""

# ruff: noqa: E402 - the path to what is measured comes first

from __future__ import annotations

import argparse
import compileall
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(1, str(ROOT))  # what is measured is this tree, and not what happens to be installed

import rows_guard
import rows_ledger
import rows_start
import rows_watch
from table import Line, Skipped, show, show_header
from world import World, world

ROWS: dict[str, Callable[[World], Iterator[Line | Skipped]]] = {
    "guard": rows_guard.one_by_one,
    "own": rows_guard.without_network,
    "import": rows_start.imports,
    "check": rows_start.check,
    "swarm": rows_guard.at_once,
    "watch": rows_watch.watched,
    "pairs": rows_ledger.pairs,
    "holds": rows_ledger.holds,
    "growth": rows_ledger.growth,
    "contention": rows_ledger.contention,
    "run": rows_start.wrapper,
    "shell": rows_ledger.shell,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller numbers: half a minute in all")
    parser.add_argument("rows", metavar="ROW", nargs="*", help=f"only these: {', '.join(ROWS)}")
    options = parser.parse_args()
    for row in options.rows:
        if row not in ROWS:
            parser.error(f"there is no row {row!r}, only {', '.join(ROWS)}")
    # The table alone: guards warn in the log of the program that they are in. What it costs them stays the same.
    logging.getLogger("creditguard").addHandler(logging.NullHandler())
    logging.getLogger("creditguard").propagate = False
    compileall.compile_dir(ROOT / "creditguard", quiet=1)  # as an installer leaves it, and what it is held against is
    start = time.monotonic()
    missed = 0
    with world(quick=options.quick) as here:
        show_header()
        for row in options.rows or ROWS:
            for found in ROWS[row](here):
                show(found)
                missed += isinstance(found, Line) and found.met is False
    print(f"{missed or 'no'} target{'s' if missed > 1 else ''} missed; {time.monotonic() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
