"""The wrapper as a program of its own, run on real commands.

It does what `creditguard run` does around its command, without the readings: run it, exit as it did. Whether processes are
gone is told by a pipe that all of them hold open: its end of file comes when the last one has let go.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE

import creditguard

PROGRAM = """
import os, sys, threading, types
sys.path.insert(0, {root!r})
package = sys.modules["creditguard.cli"] = types.ModuleType("creditguard.cli")  # the rest of it would take half of the time
package.__path__ = [{root!r} + "/creditguard/cli"]
from creditguard.cli.child import Child, leave
{before}
kill_after = os.environ.pop("KILL_AFTER", None)
with Child(kill_after=float(kill_after) if kill_after else None) as child:
    {inside}
    ended = child.run(sys.argv[1:])
    {after}
if ended.reason and sys.stderr:  # else print would take stdout
    print(ended.reason, file=sys.stderr)
leave(ended)
"""


class Wrapped(subprocess.Popen[bytes]):
    """A wrapper that runs a command."""

    def line(self) -> bytes:
        """The next line of its stdout, read byte by byte."""
        assert self.stdout
        line, fd = b"", self.stdout.fileno()
        while not line.endswith(b"\n"):
            assert select.select([fd], [], [], PATIENCE)[0], f"no line came, only {line!r}"
            byte = os.read(fd, 1)
            if not byte:
                break
            line += byte
        return line.rstrip(b"\n")

    def code(self) -> int:
        return self.wait(PATIENCE)


class Witness:
    """A pipe of which every process concerned holds the writing end."""

    def __init__(self) -> None:
        self._end, self.fd = os.pipe()

    def all_gone(self, within: float = PATIENCE) -> bool:
        """Every process that was given `fd` has ended."""
        self.let_go()
        return bool(select.select([self._end], [], [], within)[0])

    def let_go(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.let_go()
        os.close(self._end)


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Make a wrapper with Python code of its own `before`, `inside` or `after` the run. (A file, as users have one.)"""

    def program(before: str = "", inside: str = "pass", after: str = "pass") -> Path:
        number = len(list(tmp_path.glob("wrapper*")))
        code = tmp_path / f"code{number}.py"
        root = str(Path(creditguard.__file__).parents[1])
        code.write_text(PROGRAM.format(root=root, before=before, inside=inside, after=after))
        path = tmp_path / f"wrapper{number}"
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -SWerror "{code}" "$@"\n')
        path.chmod(0o755)
        return path

    return program


@pytest.fixture
def wrapper(program: Callable[..., Path]) -> Path:
    return program()


@pytest.fixture
def wrap(wrapper: Path) -> Iterator[Callable[..., Wrapped]]:
    """Start a wrapper on a command."""
    started: list[Wrapped] = []

    def wrap(*argv: str, kill_after: float | None = None, program: Path = wrapper, **options: Any) -> Wrapped:
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stdin", subprocess.DEVNULL)
        env = dict(options.pop("env", os.environ))
        if kill_after is not None:
            env["KILL_AFTER"] = str(kill_after)
        process = Wrapped([program, *argv], env=env, **options)
        started.append(process)
        return process

    yield wrap
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness()
    yield witness
    witness.close()
