"""At a terminal, under a real interactive shell: the keys, jobs and modes are as they are without us."""

from __future__ import annotations

import os
import re
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE
from window import Terminal

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


class Session(Terminal):
    """A session whose text is read on and on, whatever becomes of the screen."""

    def __init__(self, *argv: str, **env: str) -> None:
        super().__init__(*argv, rows=50, columns=200, TERM="dumb", **env)
        self.pid = self.process.pid
        self._read = 0

    @property
    def everything(self) -> str:
        return self.raw.decode(errors="replace").replace("\r\n", "\n")

    def enter(self, line: str) -> None:
        self.type(line + "\n")

    def shows(self, pattern: str) -> None:
        """Wait for a pattern in what has been shown since the last one."""
        found = re.compile(pattern)
        self.until(lambda: found.search(self.everything, self._read), pattern)
        self._read = found.search(self.everything, self._read).end()

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.fd)

    @property
    def foreground(self) -> int:
        return os.tcgetpgrp(self.fd)

    def enter_job(self, line: str) -> None:
        """Enter what brings a job to the foreground, and wait until it is there. (Shells tell so before it is.)"""
        before = self.foreground
        self.enter(line)
        self.until(lambda: self.foreground != before, "the job has the terminal")

    def hang_up(self) -> int:
        """Take the terminal away; the exit status."""
        os.close(self.fd)
        self.fd = os.open(os.devnull, os.O_RDONLY)
        return self.process.wait(PATIENCE)


Sessions = Callable[..., Session]


@pytest.fixture
def session(wrapper: Path) -> Iterator[Sessions]:
    opened: list[Session] = []

    def session(*argv: str, program: Path = wrapper) -> Session:
        screen = Session(*argv, W=str(program), PY=sys.executable, LOOKS=LOOKS, PATIENT=PATIENT, PS1="$ ", HISTFILE="")
        opened.append(screen)
        return screen

    yield session
    for screen in opened:
        screen.close()


@pytest.fixture
def shell(session: Sessions) -> Session:
    """An interactive bash. Its prompt shows the last code."""
    return prompt(session("bash", "--norc", "--noprofile", "--noediting", "-i"))


def prompt(screen: Session) -> Session:
    screen.shows(r"[$#] ")
    screen.enter("stty -echo; PS1='<$?>$ '")
    screen.shows(r"<\d+>\$ ")
    return screen


def test_the_command_has_the_terminal(shell: Session) -> None:
    shell.enter('"$W" "$PY" -Sc "$LOOKS"')
    shell.shows("isatty True True True foreground True")
    shell.shows(r"question\? ")
    shell.enter("yes")
    shell.shows("answer yes")
    shell.shows(r"<0>\$ ")


@pytest.mark.parametrize(("key", "code"), [(CTRL_C, 130), (CTRL_BACKSLASH, 131)])
def test_keys_that_end_the_command(shell: Session, key: str, code: int) -> None:
    shell.enter('"$W" sh -c "echo ready; exec sleep 60"')
    shell.shows("ready")
    shell.type(key)
    shell.shows(rf"<{code}>\$ ")


def test_a_command_that_handles_ctrl_c_goes_on(shell: Session) -> None:
    shell.enter('"$W" sh -c \'trap "echo caught" INT; echo ready; read x; read x; exit 5\'')
    shell.shows("ready")
    shell.type(CTRL_C)
    shell.shows("caught")
    shell.enter("")
    shell.enter("")
    shell.shows(r"<5>\$ ")


def test_ctrl_c_ends_the_shells_loop(shell: Session) -> None:
    shell.enter('for i in 1 2 3; do "$W" sh -c "echo turn $i; exec sleep 60"; done')
    shell.shows("turn 1")
    shell.type(CTRL_C)
    shell.shows(r"<130>\$ ")
    assert "turn 2" not in shell.everything


def test_ctrl_z_jobs_and_fg(shell: Session) -> None:
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


def test_ctrl_z_and_bg(shell: Session) -> None:
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


def test_stopped_by_itself(shell: Session) -> None:
    shell.enter("\"$W\" sh -c 'kill -TSTP $$; echo on again; exit 6'")
    shell.shows("Stopped")
    shell.shows(r"<148>\$ ")
    shell.enter("fg")
    shell.shows("on again")
    shell.shows(r"<6>\$ ")


def test_in_the_background_the_terminal_is_left_alone(shell: Session) -> None:
    shell.enter("\"$W\" sh -c 'echo ready; sleep 0.3; exit 6' & wait $!; echo code $?")
    shell.shows("ready")
    assert shell.foreground == shell.pid
    shell.shows("code 6")
    assert shell.foreground == shell.pid


def test_in_the_background_a_read_stops_the_job_until_fg(shell: Session) -> None:
    shell.enter("\"$W\" sh -c 'read x < /dev/tty; echo got $x; exit 6' &")
    shell.enter("while ! jobs -l | grep -q Stopped; do sleep 0.05; done; jobs -l; echo stopped it is")
    shell.shows(r"Stopped \(tty input\)")
    shell.shows("stopped it is")
    shell.enter_job("fg")
    shell.enter("something")
    shell.shows("got something")
    shell.shows(r"<6>\$ ")


def test_a_running_job_in_the_background_brought_to_the_foreground(shell: Session) -> None:
    shell.enter("\"$W\" sh -c 'echo ready; exec sleep 60' &")
    shell.shows("ready")
    shell.enter_job("fg")
    shell.type(CTRL_Z)
    shell.shows("Stopped")
    shell.enter_job("fg")
    shell.type(CTRL_C)
    shell.shows(r"<130>\$ ")


def test_a_command_that_was_killed_leaves_the_modes_as_they_were(shell: Session) -> None:
    before = shell.modes
    shell.enter("\"$W\" sh -c 'stty raw -echo; echo ready; kill -9 $$'")
    shell.shows("ready")
    shell.shows(r"<137>\$ ")
    assert shell.modes == before


def test_a_command_that_sets_modes_has_them_set(shell: Session) -> None:
    assert not shell.modes[3] & termios.NOFLSH
    shell.enter('"$W" stty noflsh')
    shell.shows(r"<0>\$ ")
    assert shell.modes[3] & termios.NOFLSH


def test_an_interactive_shell_as_the_command(shell: Session) -> None:
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


def test_killed_an_interactive_shell_gives_the_terminal_back(shell: Session) -> None:
    shell.enter("PS1='inner<$?>$ ' \"$W\" bash --norc --noprofile --noediting -i")
    shell.shows(r"inner<0>\$ ")
    shell.enter("kill -9 $$")
    shell.shows(r"<137>\$ ")
    shell.enter("echo back")
    shell.shows("back")


def test_the_wrapper_killed_ends_the_job(shell: Session, wrapper: Path) -> None:
    shell.enter('"$W" sh -c "echo ready; exec sleep 60"')
    shell.shows("ready")
    shell.type(CTRL_Z)
    shell.shows("Stopped")
    shell.enter("kill -9 %1; wait; while pgrep -s 0 -x sleep > /dev/null; do sleep 0.02; done; echo all gone")
    shell.shows("all gone")


# with others in the same job


def test_a_script_gets_ctrl_c_too(shell: Session, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('for i in 1 2 3; do "$W" sh -c "echo turn $i; exec sleep 60"; done; echo not reached')
    for interpreter in ("bash", "sh"):
        shell.enter(f"{interpreter} {script}")
        shell.shows("turn 1")
        shell.type(CTRL_C)
        shell.shows(r"<130>\$ ")
    assert "turn 2" not in shell.everything
    assert "not reached" not in shell.everything


def test_a_script_is_stopped_and_continued(shell: Session, tmp_path: Path) -> None:
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


def test_a_script_whose_command_has_the_terminal_gets_the_keys_too(shell: Session, tmp_path: Path) -> None:
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


def test_a_pager_behind_us_has_its_keys(shell: Session, tmp_path: Path) -> None:
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


def test_ctrl_c_ends_a_pipeline(shell: Session) -> None:
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
    assert screen.code() == 0


def test_as_the_session_itself_ctrl_c(session: Sessions, wrapper: Path) -> None:
    screen = session(str(wrapper), "sh", "-c", "echo ready; exec sleep 60")
    screen.shows("ready")
    screen.type(CTRL_C)
    assert screen.code() == 130


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
    assert screen.code() == 130


def test_lines_of_ours_do_not_stop_us(shell: Session, program: Program) -> None:
    """Under tostop, whoever writes in the background is stopped: we are in the background while the command has the terminal."""
    noisy = program(after="print('ours', file=sys.stderr)")
    shell.enter(f"stty tostop; {noisy} true & wait $!; echo code $?")
    shell.shows("ours")
    shell.shows("code 0")
