"""The guardian alone: what it does once nobody holds its lifeline."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from creditguard.cli.guardian import Guardian


def test_a_will_that_cannot_be_done_keeps_nothing_alive() -> None:
    """A folder for temporary files may be called anything."""
    guardian = Guardian()
    group = guardian.group
    guardian.will("rm -f 'a folder whose name has\na line's end.record'")
    command = os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setpgroup=group)
    os.close(guardian._lifeline)
    for each in (group, command):
        assert os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) == -signal.SIGKILL


def test_a_proc_that_does_not_tell_of_pending_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """gVisor's, and that of FreeBSD."""
    guardian = Guardian()
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"Name:\tsh\nThreads:\t1\n")
    assert list(guardian.missed_keys()) == []
    guardian.end()


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGTSTP], ids=lambda number: number.name
)
def test_no_signal_to_the_group_cuts_its_will_short(tmp_path: Path, number: signal.Signals) -> None:
    """A closed terminal hangs up on all who had it, when the will may be half done."""
    begun, go, done = (tmp_path / name for name in ("begun", "go", "done"))
    guardian = Guardian()
    guardian.will(f"touch {begun}; until [ -e {go} ]; do sleep 0.01; done; touch {done}")
    os.close(guardian._lifeline)
    while not begun.exists():
        time.sleep(0.01)
    os.killpg(guardian.group, number)
    go.touch()
    assert os.waitstatus_to_exitcode(os.waitpid(guardian.group, 0)[1]) == -signal.SIGKILL
    assert done.exists()
