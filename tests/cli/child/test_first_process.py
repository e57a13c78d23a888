"""As the first process of a container: orphans are reaped, and signals work, although such a process ignores them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Wrap = Callable[..., Any]

AS_ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
IN_A_NAMESPACE = (*AS_ROOT, "--fork", "--pid", "--mount-proc", "--kill-child")


@pytest.fixture
def contained(wrap: Wrap, wrapper: Path) -> Wrap:
    """Start the wrapper as process 1 of a namespace."""
    tried = subprocess.run(["unshare", *IN_A_NAMESPACE, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"may not make a PID namespace here: {tried.stderr.strip()}")
    return lambda *argv, **options: wrap(*IN_A_NAMESPACE, wrapper, *argv, program="unshare", **options)


def signal_first_process(unshare: int, number: int) -> None:
    os.kill(int(Path(f"/proc/{unshare}/task/{unshare}/children").read_text()), number)


@pytest.mark.parametrize("code", [0, 7, 75])
def test_the_code_of_the_command_comes_through(contained: Wrap, code: int) -> None:
    process = contained("sh", "-c", f"echo $PPID; exit {code}")
    assert process.line() == b"1"
    assert process.code() == code


def test_orphans_are_reaped_while_the_command_runs(contained: Wrap) -> None:
    script = """
    for i in 1 2 3 4 5; do (sh -c 'exit 3' &); done
    while grep -l 'State:.Z' /proc/[0-9]*/status; do sleep 0.01; done
    exit 7
    """
    assert contained("sh", "-c", script, stderr=subprocess.DEVNULL).code() == 7


def test_the_orphans_last_words_are_not_taken_for_the_commands(contained: Wrap) -> None:
    assert contained("sh", "-c", "(sh -c 'exit 3' &); (sh -c 'kill -9 $$' &); sleep 0.1; exit 7").code() == 7


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1"])
def test_signals_reach_the_command_which_has_no_handler(contained: Wrap, name: str) -> None:
    process = contained("sh", "-c", "echo ready; exec sleep 60")
    assert process.line() == b"ready"
    number = signal.Signals[f"SIG{name}"]
    signal_first_process(process.pid, number)
    assert process.code() == 128 + number


def test_it_ends_with_the_command_and_takes_the_rest_along(contained: Wrap, witness: Any) -> None:
    process = contained("sh", "-c", "sleep 60 & exit 5", pass_fds=[witness.fd])
    assert process.code() == 5
    assert witness.all_gone()


def test_stragglers_are_waited_for_and_reaped(contained: Wrap) -> None:
    job = "trap 'exit 9' TERM; sh -c 'echo ready; exec sleep 60' & wait"
    process = contained("sh", "-c", job, env={"KILL_AFTER": "15", "PATH": "/usr/bin:/bin"})
    assert process.line() == b"ready"
    told = time.monotonic()
    signal_first_process(process.pid, signal.SIGTERM)
    assert process.code() == 9
    assert time.monotonic() - told < 10
