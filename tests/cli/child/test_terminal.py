"""At a terminal, under a real interactive shell: the keys, jobs and modes are as they are without us."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., Path]

CTRL_C, CTRL_Z, CTRL_BACKSLASH, CTRL_D = "\x03", "\x1a", "\x1c", "\x04"

LOOKS = """
import os, sys
print("isatty", *(os.isatty(fd) for fd in (0, 1, 2)), "foreground", os.tcgetpgrp(0) == os.getpgrp(), flush=True)
print("answer", input("question? "), flush=True)
"""


PATIENT = """
import os, signal, sys, time
seen = []
signal.signal(signal.SIGCONT, lambda *_: seen.append(os.write(1, b"on again\\n")))
os.write(1, b"ready\\n")
while len(seen) < int(sys.argv[1]):
    time.sleep(0.01)
os.write(1, b"got " + os.read(0, 100))
sys.exit(6)
"""
"""Tells when it is continued (Ctrl-Z before that is lost), and asks for input after so many times."""


class Screen:
    """A session on a new terminal, what it shows, and a keyboard."""

    PATIENCE = 20

    def __init__(self, *argv: str, **env: str) -> None:
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.execvpe(argv[0], argv, {"PATH": os.environ["PATH"], "TERM": "dumb", **env})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self._unread = ""
        self.everything = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def enter(self, line: str) -> None:
        self.type(line + "\n")

    def shows(self, pattern: str) -> re.Match[str]:
        """Wait for a pattern in what has been shown since the last one."""
        end = time.monotonic() + self.PATIENCE
        while not (found := re.search(pattern, self._unread)):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                pytest.fail(f"{pattern!r} was never shown, but:\n{self.everything}")
            try:
                text = os.read(self._fd, 65536).decode(errors="replace").replace("\r\n", "\n")
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                pytest.fail(f"the session ended before {pattern!r} was shown, but:\n{self.everything}")
            self._unread += text
            self.everything += text
        self._unread = self._unread[found.end() :]
        return found

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._fd)

    @property
    def foreground(self) -> int:
        return os.tcgetpgrp(self._fd)

    def enter_job(self, line: str) -> None:
        """Enter what brings a job to the foreground, and wait until it is there. (Shells tell so before it is.)"""
        before = self.foreground
        self.enter(line)
        end = time.monotonic() + self.PATIENCE
        while self.foreground == before:
            assert time.monotonic() < end, "the job never got the terminal"
            time.sleep(0.002)

    def end(self) -> int:
        """The exit status, once the session has ended."""
        with contextlib.suppress(OSError):
            while os.read(self._fd, 65536):
                pass
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def hang_up(self) -> int:
        """Take the terminal away; the exit status."""
        os.close(self._fd)
        self._fd = -1
        return self.end()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


Sessions = Callable[..., Screen]


@pytest.fixture
def session(wrapper: Path) -> Iterator[Sessions]:
    opened: list[Screen] = []

    def session(*argv: str, program: Path = wrapper) -> Screen:
        screen = Screen(*argv, W=str(program), PY=sys.executable, LOOKS=LOOKS, PATIENT=PATIENT, PS1="$ ", HISTFILE="")
        opened.append(screen)
        return screen

    yield session
    for screen in opened:
        screen.close()


@pytest.fixture
def shell(session: Sessions) -> Screen:
    """An interactive bash. Its prompt shows the last code."""
    return prompt(session("bash", "--norc", "--noprofile", "--noediting", "-i"))


def prompt(screen: Screen) -> Screen:
    screen.shows(r"[$#] ")
    screen.enter("stty -echo; PS1='<$?>$ '")
    screen.shows(r"<\d+>\$ ")
    return screen


def test_the_command_has_the_terminal(shell: Screen) -> None:
    shell.enter('"$W" "$PY" -Sc "$LOOKS"')
    shell.shows("isatty True True True foreground True")
    shell.shows(r"question\? ")
    shell.enter("yes")
    shell.shows("answer yes")
    shell.shows(r"<0>\$ ")


@pytest.mark.parametrize(("key", "code"), [(CTRL_C, 130), (CTRL_BACKSLASH, 131)])
def test_keys_that_end_the_command(shell: Screen, key: str, code: int) -> None:
    shell.enter('"$W" sh -c "echo ready; exec sleep 60"')
    shell.shows("ready")
    shell.type(key)
    shell.shows(rf"<{code}>\$ ")


def test_a_command_that_handles_ctrl_c_goes_on(shell: Screen) -> None:
    shell.enter('"$W" sh -c \'trap "echo caught" INT; echo ready; read x; read x; exit 5\'')
    shell.shows("ready")
    shell.type(CTRL_C)
    shell.shows("caught")
    shell.enter("")
    shell.enter("")
    shell.shows(r"<5>\$ ")


def test_ctrl_c_ends_the_shells_loop(shell: Screen) -> None:
    shell.enter('for i in 1 2 3; do "$W" sh -c "echo turn $i; exec sleep 60"; done')
    shell.shows("turn 1")
    shell.type(CTRL_C)
    shell.shows(r"<130>\$ ")
    assert "turn 2" not in shell.everything


def test_ctrl_z_jobs_and_fg(shell: Screen) -> None:
    shell.enter('"$W" "$PY" -Sc "$PATIENT" 0')
    shell.shows("ready")
    for _ in range(3):
        shell.type(CTRL_Z)
        shell.shows("Stopped")
        shell.shows(r"<148>\$ ")
        shell.enter("jobs -l")
        shell.shows(r"\[1\]\+ +\d+ Stopped")
        shell.shows(r"<0>\$ ")
        shell.enter("fg")
        shell.shows("on again")
    shell.enter("something")
    shell.shows("got something")
    shell.shows(r"<6>\$ ")


def test_another_shell(session: Sessions) -> None:
    shell = prompt(session("dash", "-i"))
    shell.enter('"$W" "$PY" -Sc "$PATIENT" 0')
    shell.shows("ready")
    shell.type(CTRL_Z)
    shell.shows("Stopped")
    shell.shows(r"<148>\$ ")
    shell.enter("fg")
    shell.shows("on again")
    shell.enter("something")
    shell.shows("got something")
    shell.shows(r"<6>\$ ")


def test_ctrl_z_and_bg(shell: Screen) -> None:
    # (Not a shell: dash has a moment, when it starts another program, in which it cannot be stopped.)
    shell.enter(
        '"$W" "$PY" -uSc "import time; print(\'ready\'); time.sleep(0.5); print(\'working\'); raise SystemExit(6)"'
    )
    shell.shows("ready")
    shell.type(CTRL_Z)
    shell.shows("Stopped")
    shell.enter("bg; wait -n; echo code $?")
    shell.shows("working")
    shell.shows("code 6")
    assert shell.foreground == shell.pid
    shell.enter("echo still here")  # and the terminal was not taken from the shell
    shell.shows("still here")


def test_stopped_by_itself(shell: Screen) -> None:
    shell.enter("\"$W\" sh -c 'kill -TSTP $$; echo on again; exit 6'")
    shell.shows("Stopped")
    shell.shows(r"<148>\$ ")
    shell.enter("fg")
    shell.shows("on again")
    shell.shows(r"<6>\$ ")


def test_in_the_background_the_terminal_is_left_alone(shell: Screen) -> None:
    shell.enter("\"$W\" sh -c 'echo ready; sleep 0.3; exit 6' & wait $!; echo code $?")
    shell.shows("ready")
    assert shell.foreground == shell.pid
    shell.shows("code 6")
    assert shell.foreground == shell.pid


def test_in_the_background_a_read_stops_the_job_until_fg(shell: Screen) -> None:
    shell.enter("\"$W\" sh -c 'read x < /dev/tty; echo got $x; exit 6' &")
    shell.enter("while ! jobs -l | grep -q Stopped; do sleep 0.05; done; jobs -l; echo stopped it is")
    shell.shows(r"Stopped \(tty input\)")
    shell.shows("stopped it is")
    shell.enter_job("fg")
    shell.enter("something")
    shell.shows("got something")
    shell.shows(r"<6>\$ ")


def test_a_running_job_in_the_background_brought_to_the_foreground(shell: Screen) -> None:
    shell.enter("\"$W\" sh -c 'echo ready; exec sleep 60' &")
    shell.shows("ready")
    shell.enter_job("fg")
    shell.type(CTRL_Z)
    shell.shows("Stopped")
    shell.enter_job("fg")
    shell.type(CTRL_C)
    shell.shows(r"<130>\$ ")


def test_a_command_that_was_killed_leaves_the_modes_as_they_were(shell: Screen) -> None:
    before = shell.modes
    shell.enter("\"$W\" sh -c 'stty raw -echo; echo ready; kill -9 $$'")
    shell.shows("ready")
    shell.shows(r"<137>\$ ")
    assert shell.modes == before


def test_a_command_that_sets_modes_has_them_set(shell: Screen) -> None:
    assert not shell.modes[3] & termios.NOFLSH
    shell.enter('"$W" stty noflsh')
    shell.shows(r"<0>\$ ")
    assert shell.modes[3] & termios.NOFLSH


def test_an_interactive_shell_as_the_command(shell: Screen) -> None:
    """It makes itself a group, and hands the terminal on to groups of its own."""
    shell.enter("PS1='inner<$?>$ ' \"$W\" bash --norc --noprofile --noediting -i")
    shell.shows(r"inner<0>\$ ")
    shell.enter('"$PY" -Sc "$PATIENT" 0')
    shell.shows("ready")
    shell.type(CTRL_Z)
    shell.shows("Stopped")
    shell.shows(r"inner<148>\$ ")
    shell.enter("fg")
    shell.shows("on again")
    shell.type(CTRL_C)
    shell.shows(r"inner<130>\$ ")
    shell.enter("exit 5")
    shell.shows(r"<5>\$ ")
    shell.enter("echo back")
    shell.shows("back")


def test_killed_an_interactive_shell_gives_the_terminal_back(shell: Screen) -> None:
    shell.enter("PS1='inner<$?>$ ' \"$W\" bash --norc --noprofile --noediting -i")
    shell.shows(r"inner<0>\$ ")
    shell.enter("kill -9 $$")
    shell.shows(r"<137>\$ ")
    shell.enter("echo back")
    shell.shows("back")


def test_the_wrapper_killed_ends_the_job(shell: Screen, wrapper: Path) -> None:
    shell.enter('"$W" sh -c "echo ready; exec sleep 60"')
    shell.shows("ready")
    shell.type(CTRL_Z)
    shell.shows("Stopped")
    shell.enter("kill -9 %1; wait; while pgrep -s 0 -x sleep > /dev/null; do sleep 0.02; done; echo all gone")
    shell.shows("all gone")


# with others in the same job


def test_a_script_gets_ctrl_c_too(shell: Screen, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('for i in 1 2 3; do "$W" sh -c "echo turn $i; exec sleep 60"; done; echo not reached')
    for interpreter in ("bash", "sh"):
        shell.enter(f"{interpreter} {script}")
        shell.shows("turn 1")
        shell.type(CTRL_C)
        shell.shows(r"<130>\$ ")
    assert "turn 2" not in shell.everything
    assert "not reached" not in shell.everything


def test_a_script_is_stopped_and_continued(shell: Screen, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('"$W" "$PY" -Sc "$PATIENT" 2; echo code $?')
    shell.enter(f"sh {script}")
    shell.shows("ready")
    for _ in range(2):
        shell.type(CTRL_Z)
        shell.shows("Stopped")
        shell.shows(r"<148>\$ ")
        shell.enter("fg")
        shell.shows("on again")
    shell.enter("something")  # the command asks for the terminal only now, and gets it
    shell.shows("got something")
    shell.shows("code 6")
    shell.shows(r"<0>\$ ")


def test_a_script_whose_command_has_the_terminal_gets_the_keys_too(shell: Screen, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('"$W" sh -c \'read x; exec "$PY" -Sc "$PATIENT" 2\'; echo code $?; sleep 60')
    shell.enter(f"sh {script}")
    shell.enter("something")
    shell.shows("ready")
    shell.type(CTRL_Z)
    shell.shows("Stopped")
    shell.shows(r"<148>\$ ")
    shell.enter("fg")
    shell.shows("on again")
    shell.type(CTRL_C)
    shell.shows(r"<130>\$ ")


def test_a_pager_behind_us_has_its_keys(shell: Screen, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text(
        "cat; stty -icanon < /dev/tty; echo more; read key < /dev/tty; stty icanon < /dev/tty; echo key $key"
    )
    shell.enter(f"\"$W\" sh -c 'echo page; sleep 0.2; exit 6' | sh {pager}; echo codes ${{PIPESTATUS[@]}}")
    shell.shows("page")
    shell.shows("more")
    shell.enter("q")
    shell.shows("key q")
    shell.shows("codes 6 0")


def test_ctrl_c_ends_a_pipeline(shell: Screen) -> None:
    shell.enter("sh -c 'sleep 60' | \"$W\" sh -c 'echo ready >&2; exec sleep 60' | cat")
    shell.shows("ready")
    shell.type(CTRL_C)
    shell.shows(r"<130>\$ |<0>\$ ")
    shell.enter("pgrep -s 0 -c -x sleep; echo counted")
    shell.shows("0\ncounted")


# without a shell: ssh -t, docker run -it, a terminal that runs one program


def test_as_the_session_itself(session: Sessions, wrapper: Path) -> None:
    screen = session(str(wrapper), sys.executable, "-Sc", LOOKS)
    screen.shows("isatty True True True foreground True")
    screen.type(CTRL_Z)  # stops nothing, since nobody could continue it
    time.sleep(0.1)
    screen.enter("yes")
    screen.shows("answer yes")
    assert screen.end() == 0


def test_as_the_session_itself_ctrl_c(session: Sessions, wrapper: Path) -> None:
    screen = session(str(wrapper), "sh", "-c", "echo ready; exec sleep 60")
    screen.shows("ready")
    screen.type(CTRL_C)
    assert screen.end() == 130


def test_a_hang_up_reaches_the_command(session: Sessions, wrapper: Path) -> None:
    screen = session(str(wrapper), "sh", "-c", "trap 'exit 9' HUP; sleep 60 & echo ready; wait")
    screen.shows("ready")
    assert screen.hang_up() == 9


def test_a_key_in_the_middle_of_the_start_is_not_lost(session: Sessions, program: Program) -> None:
    """Pressed when the command's group has the terminal, and the command is not yet in it."""
    early = program(
        before="""
import signal
from creditguard.cli import child as module
spawn = module._spawn
def late(*args, **options):
    os.killpg(options["setpgroup"], signal.SIGINT)
    return spawn(*args, **options)
module._spawn = late
"""
    )
    screen = session(str(early), "sleep", "60", program=early)
    assert screen.end() == 130


def test_lines_of_ours_do_not_stop_us(shell: Screen, program: Program) -> None:
    """Under tostop, whoever writes in the background is stopped: we are in the background while the command has the terminal."""
    noisy = program(after="print('ours', file=sys.stderr)")
    shell.enter(f"stty tostop; {noisy} true & wait $!; echo code $?")
    shell.shows("ours")
    shell.shows("code 0")
