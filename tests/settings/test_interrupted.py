"""What a signal handler of the host's raises while settings are read comes out, at whatever line (a TimeoutError is an OSError, too), and
no frame that it shows holds a key or a password."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from creditguard import settings

HUSH = "sk-0123456789abcdef"


def _struck(line: int) -> bool:
    """Read the settings anew, with a TimeoutError at this line of all that run, the standard library's among them; whether there was one."""
    lines = count()

    def trace(_: FrameType, event: str, __: Any) -> Callable[..., Any]:
        if event == "line" and next(lines) == line:
            raise TimeoutError("time is up")
        return trace

    settings._latest = None
    before = sys.gettrace()
    gc.disable()  # what a callback of the collector's raises is swallowed by Python itself
    sys.settrace(trace)
    try:
        settings.current()
    except TimeoutError as error:
        assert str(error) == "time is up"
        own = traceback.walk_tb(error.__traceback__.tb_next)  # beyond this frame
        assert not [frame for frame, _ in own if HUSH in repr(frame.f_locals)]
        return True
    finally:
        sys.settrace(before)
        gc.enable()
    assert next(lines) <= line, f"the TimeoutError at line {line} was swallowed"
    return False


@pytest.mark.parametrize("file", ["none", "pyproject.toml"])
def test_a_time_limit_comes_out_at_every_line(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_text(HUSH)
    monkeypatch.setenv("CREDITGUARD_LEDGER", f"postgresql://me:{HUSH}@db.example/ledger")
    monkeypatch.setenv("APIMALL_API_KEY_FILE", str(key))
    working = tmp_path / "project" / "folder"
    working.mkdir(parents=True)
    monkeypatch.chdir(working)
    table = "tool.creditguard.jobs.enrich" if file == "pyproject.toml" else "jobs.enrich"
    if file != "none":
        (tmp_path / "project" / file).write_text(f"[{table}]\nbudget = 5\n")
    assert ("enrich" in settings.current().jobs) == (file != "none")
    line = next(line for line in count() if not _struck(line))
    assert line > 50
