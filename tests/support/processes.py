"""What tests look for in other processes, and how they wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 20.0


def eventually(condition: Callable[[], object], what: str = "condition") -> None:
    """For what cannot be waited for."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)


def state(pid: int) -> str:
    """As in ps: R, S, T (stopped), Z (zombie), or nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
