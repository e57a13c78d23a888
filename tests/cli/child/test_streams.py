"""The streams, descriptors and environment of a command are those that it would have without us."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import eventually, state

Wrap = Callable[..., Any]
Program = Callable[..., Path]


def sh(script: str, wrapper: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell, in which "$W" is the wrapper."""
    env = {**os.environ, "W": str(wrapper)}
    return subprocess.run(["bash", "-c", script], env=env, capture_output=True, timeout=60, **options)


def test_a_hundred_mebibytes_come_through_unchanged(wrap: Wrap, wrapper: Path) -> None:
    there, back = os.pipe()
    sends = wrap("sh", "-c", "head -c 104857600 /dev/urandom | tee /dev/fd/$SUMS", stdout=subprocess.PIPE,
                 env={**os.environ, "SUMS": str(back)}, pass_fds=[back])  # fmt: skip
    os.close(back)
    expected = subprocess.Popen(["sha256sum"], stdin=there, stdout=subprocess.PIPE)
    os.close(there)
    through = wrap("cat", stdin=sends.stdout)
    sends.stdout.close()
    found = hashlib.sha256()
    while block := through.stdout.read(1 << 20):
        found.update(block)
    assert expected.communicate()[0].split()[0].decode() == found.hexdigest()
    assert (sends.code(), through.code()) == (0, 0)


def test_nothing_of_ours_on_stdout(wrapper: Path) -> None:
    done = sh('"$W" sh -c "echo out; echo err >&2"', wrapper)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 0)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_stay_closed(wrapper: Path, tmp_path: Path, closed: str) -> None:
    """And no descriptor of ours gets their numbers: neither the command's, nor our own next socket."""
    lists = f"ls /proc/self/fd > {tmp_path}/fds; exit 7"
    assert sh(f"env bash -c '{lists}' {closed}", wrapper).returncode == 7
    theirs = (tmp_path / "fds").read_text()
    done = sh(f"\"$W\" bash -c '{lists}' {closed}", wrapper)
    assert (done.returncode, done.stderr) == (7, b"")
    assert (tmp_path / "fds").read_text() == theirs


def test_a_message_of_ours_with_stderr_closed(wrapper: Path) -> None:
    done = sh('"$W" nonexistent-command 2>&-', wrapper)
    assert (done.returncode, done.stdout) == (127, b"")


def test_a_reader_that_leaves_ends_the_command_as_without_us(wrapper: Path) -> None:
    done = sh('"$W" yes | head -1; echo ${PIPESTATUS[@]}', wrapper)
    assert (done.stdout, done.stderr) == (b"y\n141 0\n", b"")


def test_a_closed_pipe_for_stderr(wrapper: Path) -> None:
    done = sh('{ "$W" sh -c "echo err >&2; echo err >&2; exit 7"; echo $? >&3; } 3>&1 2> >(exec true); wait', wrapper)
    assert done.stdout in {b"7\n", b"141\n"}  # the command's own affair
    done = sh('{ sleep 0.2; "$W" sh -c "exit 7"; echo $? >&3; } 3>&1 2> >(exec true)', wrapper)
    assert done.stdout == b"7\n"


def test_both_ends_of_a_pipeline_close_with_the_command(wrap: Wrap, program: Program) -> None:
    """Not when we have taken our exit reading, which may take a while."""
    theirs, ours = os.pipe()
    lingers = program(after=f"os.read({theirs}, 1)")
    source = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    wrapper = wrap("head", "-1", program=lingers, stdin=source.stdout, pass_fds=[theirs])
    source.stdout.close()
    assert wrapper.stdout.read() == b"y\n"
    assert source.wait(20) == -13
    assert wrapper.poll() is None
    os.write(ours, b"x")
    assert wrapper.code() == 0
    os.close(theirs)
    os.close(ours)


def test_process_substitution(wrapper: Path) -> None:
    done = sh('"$W" diff <(echo same) <(echo same) && "$W" cat <(echo one) <(echo two)', wrapper)
    assert (done.stdout, done.returncode) == (b"one\ntwo\n", 0)
    done = sh('"$W" tee >(sed s/^/seen:/ >&2) <<< hello; wait', wrapper)
    assert done.stdout == b"hello\n"


def test_the_descriptors_are_those_that_env_would_leave(wrapper: Path, tmp_path: Path) -> None:
    """flock's 9, a jobserver's pipe; and none of ours."""
    lists = "exec 9>/dev/null 5</dev/null; {} bash -c 'ls -l /proc/self/fd' | sed 's/.*:[0-9]* //' | grep -v /proc"
    theirs = sh(lists.format("env"), wrapper).stdout
    ours = sh(lists.format('"$W"'), wrapper).stdout
    assert b"9 -> /dev/null" in ours
    assert [line.split(b"pipe:")[0] for line in ours.splitlines()] == [
        line.split(b"pipe:")[0] for line in theirs.splitlines()
    ]


def test_a_jobserver(wrapper: Path, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text('all: a b\na b:\n\t+"$$W" $(MAKE) -f sub.mk $@ 2>&1\n')
    (tmp_path / "sub.mk").write_text("a b:\n\t@echo made $@\n")
    done = sh(f"make -j2 -C {tmp_path}", wrapper)
    assert b"jobserver unavailable" not in done.stdout + done.stderr
    assert b"made a" in done.stdout
    assert b"made b" in done.stdout


@pytest.mark.parametrize(
    "locale", [{}, {"LC_CTYPE": "C"}, {"LC_CTYPE": "C.UTF-8"}, {"LANG": "C.UTF-8"}, {"LC_ALL": "C"}, {"LANG": "C"}]
)
def test_the_environment_is_the_one_we_got(wrap: Wrap, wrapper: Path, locale: dict[str, str]) -> None:
    """Python sets LC_CTYPE where there is none, as under cron; then `sort` would sort otherwise."""
    base = {"PATH": os.environ["PATH"], "ODD": os.fsdecode(b"\xff"), "EMPTY": ""}
    expected = {*(f"{name}={value}" for name, value in {**base, **locale}.items())}
    process = wrap(
        "-u", "PWD", "-u", "_", "-u", "SHLVL", "-u", "OLDPWD", wrapper, "env", program="env", env={**base, **locale}
    )
    found = {os.fsdecode(line) for line in process.stdout.read().splitlines()}
    assert {entry for entry in found if not entry.startswith(("PWD=", "_=", "SHLVL=", "OLDPWD="))} == expected


def test_directory_limits_and_mask_are_inherited(wrapper: Path, tmp_path: Path) -> None:
    script = f"cd {tmp_path}; umask 027; ulimit -n 123; {{}} bash -c 'pwd; umask; ulimit -n; nice'"
    assert sh(script.format('"$W"'), wrapper).stdout == sh(script.format("env"), wrapper).stdout


# what it costs


def test_waiting_takes_no_time(wrap: Wrap) -> None:
    wrapper = wrap("sh", "-c", "echo ready; exec sleep 60")
    assert wrapper.line() == b"ready"
    eventually(lambda: state(wrapper.pid) == "S")

    def woken() -> list[str]:
        lines = Path(f"/proc/{wrapper.pid}/status").read_text().splitlines()
        return [line for line in lines if "ctxt_switches" in line]

    subprocess.run(["sleep", "0.1"], check=True)
    before = woken()
    subprocess.run(["sleep", "0.5"], check=True)
    assert woken() == before


def test_no_zombie_no_descriptor_and_no_thread_is_left(program: Program) -> None:
    code = """
import gc, os, threading
from creditguard.cli.child import Child
def run(argv):
    with Child() as child:
        return child.run(argv)
run(["true"])
def as_it_is():
    return sorted(os.listdir("/proc/self/fd")), threading.active_count()
before = as_it_is()
for argv in (["true"], ["sh", "-c", "kill -9 $$"], ["nonexistent"], ["/"], ["sh", "-c", "exit 3"]):
    run(argv)
    try:
        raise SystemExit(f"left behind: {os.waitpid(-1, os.WNOHANG)}")
    except ChildProcessError:
        pass
assert as_it_is() == before
"""
    subprocess.run([sys.executable, "-Werror", "-c", code], check=True)


def test_other_threads_are_no_reason_for_a_warning(wrap: Wrap, program: Program) -> None:
    """Python 3.12 and later warn of a fork in a process with threads, and are right."""
    threaded = program(before="threading.Thread(target=threading.Event().wait, daemon=True).start()")
    wrapper = wrap("sh", "-c", "exit 3", program=threaded, stderr=subprocess.PIPE)
    assert wrapper.communicate()[1] == b""
    assert wrapper.returncode == 3
