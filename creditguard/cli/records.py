"""What a wrapped command says that it spent: a file of one amount a line, named in CREDITGUARD_RECORD_FILE."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from creditguard.errors import ConfigurationError
from creditguard.run import Run

VARIABLE = "CREDITGUARD_RECORD_FILE"


def new_file() -> Path | None:
    """An empty file that only this user can read or write; None where there is no place for one (then nothing is recorded)."""
    try:
        handle, name = tempfile.mkstemp(prefix="creditguard-", suffix=".record")
    except OSError:
        return None
    os.close(handle)
    return Path(name)


def collect(path: Path, run: Run) -> list[str]:
    """Add all that was recorded to the run, and remove the file; the lines that are no amounts, for a warning."""
    odd = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        path.unlink()
    except OSError:
        return ["the file is gone"]
    for line in filter(None, map(str.strip, lines)):
        try:
            run.record(line)
        except ConfigurationError:
            odd.append(line[:40])
    return odd
