"""Finding the host of a run, in whatever thread and under whatever time limit it begins."""

from __future__ import annotations

import signal
import sys
import textwrap
from pathlib import Path

import pytest

from creditguard import guard
from creditguard.guarding import hosts

_HOST = """
    import os, signal, threading, time

    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0.3)  # a main thread that imports is interrupted here
    imported_by = threading.current_thread().name

    def here():
        return None
"""


class TooLongError(Exception):
    pass


def test_a_time_limit_interrupts_no_import(credit_gateway, tmp_path: Path, monkeypatch) -> None:
    def too_long(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise TooLongError

    tmp_path.joinpath("host_of_os.py").write_text(textwrap.dedent(_HOST))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(hosts, "_MODULES", {"os": "host_of_os"})
    before = signal.signal(signal.SIGUSR1, too_long)
    try:
        with pytest.raises(TooLongError), guard("job", budget=1):
            pytest.fail("it was interrupted before")
        with guard("next", budget=1):
            assert sys.modules.pop("host_of_os").imported_by == "creditguard"
    finally:
        signal.signal(signal.SIGUSR1, before)
