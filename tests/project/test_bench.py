"""The benchmark runs, and each of its rows says a ratio and its noise. How fast anything is, no test judges."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "run.py"

ROWS = [
    "guard, no ledger",
    "guard + SQLite ledger",
    "guard + PostgreSQL ledger",
    "guard, no ledger, no network",
    "guard + SQLite, no network",
    "import creditguard",
    "from creditguard import guard",
    "creditguard check",
    "creditguard check --ledger none",
    "creditguard check, among all of .venv",
    "creditguard check, with a settings file",
    "1,000 async guards at once, no ledger",
    "1,000 async guards at once, SQLite ledger",
    "100 watched runs, processor time",
    "reserve and settle, SQLite",
    "reserve and settle, PostgreSQL",
    "admission, 2,000 live holds, SQLite",
    "admission, 2,000 live holds, PostgreSQL",
    "admission, 20,000 rows of history, SQLite",
    "reserve and settle, 20,000 rows",
    "history, 20,000 rows",
    "history, no such job, 20,000 rows",
    "history, job elsewhere, 20,000 rows",
    "holds, 2,000 of them",
    "4 processes, SQLite: fastest / slowest",
    "4 processes, SQLite: runs/s",
    "4 processes, SQLite: longest wait",
    "16 processes, SQLite: runs/s",
    "16 processes, SQLite: longest wait",
    "50 processes, SQLite: runs/s",
    "50 processes, SQLite: longest wait",
    "creditguard run -- true, less 2 readings",
    "creditguard run, resident memory",
    "20 shell jobs, xargs -P 50, no ledger",
    "20 shell jobs, xargs -P 50, SQLite",
]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, BENCH, *arguments], {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def table(output: str) -> dict[str, list[str]]:
    """The cells after the first of each row, by the first."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if line[0] == "|"]
    return {first: rest for first, *rest in lines[2:]}


@pytest.mark.timeout(300)
def test_every_row_runs_and_prints_a_ratio_with_its_noise():
    done = bench("--quick")
    assert (done.returncode, done.stderr) == (0, "")
    found = table(done.stdout)
    assert list(found) == ROWS
    for name, (_, ratio, noise, target, met, detail) in found.items():
        if ratio == "skipped" and "PostgreSQL" in name:  # no wheel with a server for this system
            continue
        assert re.fullmatch(r"\d+\.\d\dx", ratio), (name, ratio, detail)
        assert re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d-\d+\.\d\d\)", noise), (name, noise)
        assert met in ({"yes", "NO"} if target else {""}), (name, target, met)
        assert detail, name
    assert "ms of our own" in found["guard, no ledger"][-1]
    assert re.search(r"targets? missed; \d+ s in all$", done.stdout.strip())


def test_rows_can_be_chosen():
    done = bench("--quick", "import")
    assert done.returncode == 0
    assert list(table(done.stdout)) == ["import creditguard", "from creditguard import guard"]


def test_what_is_measured_is_this_tree(tmp_path: Path):
    (tmp_path / "creditguard.py").write_text("raise ImportError('another one, which happens to be installed')")
    done = bench("--quick", "import", "check", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_help_says_how_to_run_some_of_the_rows():
    assert 'make bench BENCH_ARGS="--quick guard import"' in bench("--help").stdout


def test_a_row_that_does_not_exist_is_refused():
    done = bench("speed")
    assert done.returncode == 2
    assert "there is no row 'speed'" in done.stderr
