"""The command's own code, or the one that `env` has for it: each case is held against `env` itself."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Wrap = Callable[..., subprocess.Popen[bytes]]


def as_env_does(*argv: str, **options: object) -> int:
    """What a shell would show for `env CMD`."""
    code = subprocess.run(["/usr/bin/env", *argv], capture_output=True, **options).returncode
    return 128 - code if code < 0 else code


@pytest.mark.parametrize("code", [0, 7, 75, 255])
def test_the_code_of_the_command_comes_through(wrap: Wrap, code: int) -> None:
    assert wrap("sh", "-c", f"exit {code}").wait() == code


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "INT", "PIPE"])
def test_death_by_a_signal_is_128_and_its_number(wrap: Wrap, name: str) -> None:
    argv = ("sh", "-c", f"ulimit -c unlimited; kill -{name} $$", "dumps core here")
    code = wrap(*argv, cwd="/proc/self", stderr=subprocess.PIPE).wait()
    assert code == 128 + signal.Signals[f"SIG{name}"] == as_env_does(*argv, cwd="/proc/self")


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A directory of things that are not quite programs."""
    files = {
        "plain": ("echo hello\n", 0o644),
        "no-shebang": ('echo "$0 $1"; exit 3\n', 0o755),
        "empty": ("", 0o755),
        "bad-interpreter": ("#!/nonexistent/interpreter\n", 0o755),
        "script": ("#!/bin/sh\nexit 4\n", 0o755),
    }
    for name, (text, mode) in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    (tmp_path / "directory").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing", 127),
        ("bad-interpreter", 127),
        ("plain/below", 126),
        ("plain", 126),
        ("directory", 126),
        ("no-shebang", 3),
        ("empty", 0),
        ("script", 4),
    ],
)
def test_what_cannot_be_run_is_126_or_127(wrap: Wrap, commands: Path, name: str, code: int) -> None:
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
    for command in {str(commands / name), name} if "/" not in name else {str(commands / name)}:
        process = wrap(command, "argument", env=environment, stderr=subprocess.PIPE)
        stdout, stderr = process.communicate()
        assert process.returncode == code == as_env_does(command, "argument", env=environment)
        assert bool(stderr) == (code in {126, 127})
        assert b"Traceback" not in stderr
        if name == "no-shebang":
            assert stdout.decode() == f"{commands / name} argument\n"


def test_a_file_in_path_where_a_directory_should_be_is_no_reason(wrap: Wrap, commands: Path) -> None:
    environment = {**os.environ, "PATH": f"/usr/bin:/bin:{commands}/plain"}
    assert wrap("missing-command", env=environment, stderr=subprocess.PIPE).wait() == 127


def test_an_empty_name_is_not_found(wrap: Wrap) -> None:
    process = wrap("", stderr=subprocess.PIPE)
    assert process.communicate()[1] == b"cannot run '': No such file or directory\n"
    assert process.returncode == 127 == as_env_does("")


def test_arguments_too_long_for_the_system_are_126(wrap: Wrap, program: Callable[..., Path]) -> None:
    longer = program(before="sys.argv.append('x' * 200_000)")
    process = wrap("true", program=longer, stderr=subprocess.PIPE)
    assert process.communicate()[1] == b"cannot run 'true': Argument list too long\n"
    assert process.returncode == 126


def test_no_process_left_for_the_command_is_126(wrap: Wrap, program: Callable[..., Path]) -> None:
    limited = program(
        before="import resource; os.getuid() or os.setuid(65432); resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))"
    )
    process = wrap("true", program=limited, stderr=subprocess.PIPE)
    assert process.communicate()[1] == b"cannot run 'true': Resource temporarily unavailable\n"
    assert process.returncode == 126


def test_arguments_that_are_no_text_come_through(wrap: Wrap) -> None:
    process = wrap("printf", "%s", os.fsdecode(b"\xff\xfe \xc3\xa4"))
    assert process.communicate()[0] == b"\xff\xfe \xc3\xa4"
