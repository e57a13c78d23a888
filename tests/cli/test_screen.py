"""What a person sees: a real terminal, the real command and real commands under it, and a screen that the test reads."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
from window import Terminal

CREDITGUARD = [sys.executable, "-m", "creditguard"]
SPEND = f"{sys.executable} {Path(__file__).parents[2]}/examples/spend.py"
ROW = r"0 of 80 spent, 120 left$"


@pytest.fixture
def window(gateway, monkeypatch):
    """Run a shell script under `creditguard run --progress` on a terminal."""
    monkeypatch.setenv("CREDITGUARD_MIN_INTERVAL", "0.05")
    terminals = []

    def window(script, *options, name="job", session=(), **more):
        run = [*CREDITGUARD, "run", "--budget", "80", "--name", name, "--watch", "0.1s", "--progress", *options]
        terminals.append(Terminal(*(session or [*run, "--", "sh", "-c", script]), **more))
        return terminals[-1]

    yield window
    for each in terminals:
        each.close()


def is_as_it_was(terminal, rows=12, columns=80):
    return (terminal.size, terminal.window.margins) == ((rows, columns), None)


@pytest.mark.parametrize(("columns", "ends"), [(40, "left"), (80, "left"), (120, "left")])
def test_the_row_stays_while_the_command_writes_and_goes_with_it(window, columns, ends):
    script = "for i in $(seq 60); do echo line $i; done; sleep 1; for i in $(seq 61 90); do echo line $i; sleep 0.02; done; sleep 1"
    terminal = window(script, name="enrichment-of-all-the-press-releases-of-the-last-ten-years", columns=columns)
    terminal.shows("line 60")
    terminal.shows(r"80 spent, 120 left")
    assert re.search(ROW, terminal.lines[-1])
    assert "…" in terminal.lines[-1] or columns == 120
    assert terminal.lines[-3:-1] == ["line 60", ""]
    terminal.shows("line 90")
    assert re.search(ROW, terminal.lines[-1])
    assert terminal.code() == 0
    assert is_as_it_was(terminal, columns=columns)
    assert [line for line in terminal.scrolled if "line" in line] == [f"line {i + 1}" for i in range(90)]
    assert "spent" not in "\n".join(terminal.scrolled)
    assert max(map(len, terminal.scrolled)) <= columns
    consumed = "\n".join(terminal.scrolled).partition("line 90\n")[2]
    assert re.match(r"\d\d:\d\d:\d\d \[info   \] enrich", consumed)
    assert "consumed 0 of 80 credits" in " ".join(consumed.split())


def test_an_event_begins_on_a_line_of_its_own_and_leaves_what_is_there(window):
    terminal = window(f"printf 'half a '; {SPEND} 5 >/dev/null; sleep 1; echo line; printf end")
    assert terminal.code() == 0
    lines = terminal.lines
    at = lines.index("half a")
    assert "50 % of the budget spent" in lines[at + 1]
    assert lines[at + 2] == "line"
    assert lines[at + 3] == "end"
    assert "consumed 40 of 80" in lines[at + 4]


def test_the_row_shows_what_is_spent(window):
    terminal = window(f"{SPEND} 5 >/dev/null; sleep 60", "-q")
    terminal.shows("job: 40 of 80 spent, 80 left")


@pytest.mark.parametrize(("rows", "columns"), [(11, 80), (6, 40), (20, 100), (12, 50), (3, 80)])
def test_resizing(window, rows, columns):
    terminal = window("seq 30; read x; seq 31 50; read x")
    terminal.shows(ROW)
    terminal.shows("^30$")
    terminal.resize(rows, columns)
    if rows > 3:
        terminal.until(lambda: terminal.size == (rows - 1, columns), "told of the new size")
        terminal.until(lambda: re.search(ROW, terminal.lines[-1]), "a row at the new end")
    else:
        terminal.for_a_while(0.5)
    assert sum("spent" in line for line in terminal.lines) == (rows > 3)
    terminal.type("\n")
    terminal.shows("50")
    assert bool(re.search(ROW, terminal.lines[-1])) == (rows > 3)
    terminal.type("\n")
    assert terminal.code() == 0
    assert is_as_it_was(terminal, rows, columns)
    assert re.findall(r"^\d+$", "\n".join(terminal.scrolled), re.MULTILINE)[-50:] == [str(i + 1) for i in range(50)]


SHELLS = {"bash": ["bash", "--norc", "-i"], "dash": ["dash", "-i"]}


@pytest.mark.parametrize("shell", SHELLS)
def test_ctrl_z_gives_the_terminal_back_and_fg_brings_the_row_again(window, shell):
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    terminal = window("", session=SHELLS[shell], PS1="$ ", ENV="")
    terminal.shows(r"\$ ?$")
    command = [*CREDITGUARD, "run", "--budget", "80", "--name", "job", "--watch", "0.1s", "--progress", "-q", "--"]
    terminal.type(f"{shlex.join(command)} sh -c 'echo ready; while read x; do echo got $x; done'\n")
    terminal.shows("^ready")
    terminal.shows(ROW)
    for _ in range(2):
        terminal.type("\x1a")
        terminal.shows("Stopped")
        terminal.until(lambda: is_as_it_was(terminal), "the terminal is the shell's")
        assert "spent" not in terminal.text
        terminal.type("clear; seq 30; bg\n")
        terminal.shows("30\n")
        terminal.for_a_while(0.7)
        assert is_as_it_was(terminal)
        assert "spent" not in terminal.text
        terminal.type("fg\n")
        terminal.shows(ROW)
        terminal.type("key\n")
        terminal.shows("got key")
        assert re.search(ROW, terminal.lines[-1])
    terminal.type("\x04")
    terminal.until(lambda: is_as_it_was(terminal), "over")
    assert "spent" not in terminal.text


def test_a_job_in_the_background_has_no_row(window):
    terminal = window("", session=SHELLS["bash"], PS1="$ ")
    terminal.shows(r"\$ ?$")
    command = [*CREDITGUARD, "run", "--budget", "80", "--watch", "0.1s", "--progress", "--", "sleep", "2"]
    terminal.type(f"{shlex.join(command)} &\n")
    terminal.shows("consumed")
    assert b"\x1b[1;11r" not in terminal.raw


FULL_SCREEN = {
    "vim": ("vim -u NONE -i NONE -N -n {}", ":q!\r"),
    "less": ("less {}", "q"),
}


@pytest.mark.parametrize("program", FULL_SCREEN)
def test_full_screen_programs_have_the_screen_for_themselves(window, tmp_path, program):
    """It shows what it shows on a terminal of one row less, to the last cell; events come afterwards; then all is as before."""
    if not shutil.which(program):
        pytest.skip(f"there is no {program}")
    file = tmp_path / "file"
    file.write_text("".join(f"text {number}\n" for number in range(100)))
    command, leave = FULL_SCREEN[program]
    command = command.format(file)
    alone = Terminal("sh", "-c", command, rows=11)
    ours = window(f"seq 30; sleep 0.6; {command}; echo after; read x", rows=12)
    try:
        ours.shows(ROW)
        keys = ("", "\x06", "G", "k")
        for key in keys:
            for each in (alone, ours):
                each.type(key)
                each.shows("text")
                each.for_a_while(0.5)
            assert ours.lines[:11] == alone.lines
            assert not re.search("spent", "\n".join(ours.lines[:11]))
    finally:
        alone.close()
    ours.type(leave)
    ours.shows("^after")
    ours.shows(ROW)
    assert ours.lines[-4:-1] == ["30", "after", ""]
    ours.type("\n")
    assert ours.code() == 0
    assert is_as_it_was(ours)
    assert sum("spent" in line for line in ours.scrolled) == 0


def test_events_wait_while_the_command_has_the_screen_for_itself(window, gateway):
    script = f"stty -icanon; echo mine; {SPEND} 5 >/dev/null; sleep 1; echo still mine; stty icanon; sleep 1; echo ours"
    terminal = window(script)
    terminal.shows("still mine")
    assert "budget" not in terminal.text.partition("mine\n")[2]
    assert terminal.code() == 0
    at = terminal.lines.index("still mine")
    assert "50 % of the budget spent" in terminal.lines[at + 1]
    assert terminal.lines[at + 2] == "ours"


@pytest.mark.parametrize("harm", [r"\033c", r"\033[2J", r"\033[r", r"\033[1;5r\033[5;1H"])
def test_a_command_that_resets_the_terminal(window, harm):
    terminal = window(f"seq 30; sleep 0.5; printf '{harm}'; sleep 3.5; seq 31 45; sleep 3.5; echo end")
    terminal.shows("end")
    terminal.code()
    assert is_as_it_was(terminal)
    text = "\n".join(terminal.scrolled)
    assert re.findall(r"^\d+$", text, re.MULTILINE)[-15:] == [str(i) for i in range(31, 46)]
    assert text.count("spent") == 0


def test_killed_by_sigkill_the_terminal_is_as_it_was(window):
    command = [*CREDITGUARD, "run", "--budget", "80", "--name", "job", "--watch", "0.1s", "--progress", "--"]
    script = f"{shlex.join(command)} sh -c 'echo I am $PPID; sleep 60'; sleep 60"
    terminal = window("", session=["sh", "-c", script])
    terminal.shows("I am")
    terminal.shows(ROW)
    os.kill(int(re.search(r"I am (\d+)", terminal.text)[1]), signal.SIGKILL)
    terminal.until(lambda: is_as_it_was(terminal) and "spent" not in terminal.text, "as it was")


def test_a_terminal_that_does_not_know_its_size_has_no_row(window):
    """A serial line, or a container's before anybody tells it."""
    run = f"{shlex.join(CREDITGUARD)} run --budget 80 --watch 0.1s --progress -- sh -c 'sleep 1; echo hello'"
    terminal = window("", session=["sh", "-c", f"stty rows 0 columns 0; {run}"])
    terminal.shows("hello")
    assert terminal.code() == 0
    assert b";-1r" not in terminal.raw
    assert b"\x1b[0;1H" not in terminal.raw


def test_no_color_and_a_dumb_terminal_and_no_terminal(window, creditguard):
    plain = window("echo hello; sleep 1", NO_COLOR="1")
    plain.shows(ROW)
    assert plain.code() == 0
    assert not re.search(rb"\x1b\[[1-9][0-9;]*m", plain.raw)
    dumb = window("echo hello; sleep 1", TERM="dumb")
    assert dumb.code() == 0
    assert b"\x1b" not in dumb.raw
    assert b"hello\r\n" in dumb.raw
    assert "spent" not in dumb.text
    done = creditguard(
        "run", "--budget", 80, "--watch", "1s", "--progress", "--", "true", env={"CREDITGUARD_LOG_FORMAT": "console"}
    )
    assert "\x1b" not in done.stderr
    assert "   \r" not in done.stderr


def test_messages_too_begin_on_a_line_of_their_own(window, tmp_path):
    terminal = window('printf half; echo nonsense >>"$CREDITGUARD_RECORD_FILE"')
    assert terminal.code() == 0
    at = terminal.lines.index("half")
    assert "not an amount of credits: nonsense" in "\n".join(terminal.lines[at + 1 :])


@pytest.mark.parametrize(
    "command", [("run", "--", "true"), ("check",), ("wait", "--timeout", "0")], ids=lambda words: words[0]
)
@pytest.mark.parametrize("log_format", [None, "json", "none"])
def test_a_refusal_is_read_once(window, command, log_format):
    name, *rest = command
    terminal = window(
        "",
        session=[*CREDITGUARD, name, "--budget", "500", *rest],
        columns=300,
        **({"CREDITGUARD_LOG_FORMAT": log_format} if log_format else {}),
    )
    assert terminal.code() == 75
    said = [line for line in terminal.lines if "needs 500 credits, 120 are free" in line]
    assert len(said) == 1, terminal.lines
    assert said[0].startswith("creditguard: ") == (log_format is not None)


@pytest.mark.parametrize(
    "command", [("run", "--", "true"), ("check",), ("wait", "--timeout", "0")], ids=lambda words: words[0]
)
def test_that_nothing_could_be_read_is_read_once(window, gateway, command):
    gateway.fault(status=401)
    name, *rest = command
    terminal = window("", session=[*CREDITGUARD, name, "--budget", "5", *rest], columns=300)
    assert terminal.code() == 77
    assert len([line for line in terminal.lines if "refused the key" in line]) == 1, terminal.lines


def test_names_that_are_wide_or_evil(window):
    terminal = window("echo hello; sleep 1", name="早い仕事" * 10, columns=40)
    terminal.shows("0 of 80 spent, 120 left")
    assert terminal.lines[-1].startswith("早")
    assert "…: 0 of 80 spent" in terminal.lines[-1]
    assert terminal.lines[-2] == ""
    assert terminal.code() == 0


def test_the_modes_and_the_keys_are_the_commands(window):
    """It has the real terminal: in the foreground, with its modes; Ctrl-C ends it."""
    looks = (
        "import os, sys; print(*(os.isatty(fd) for fd in (0, 1, 2)), os.tcgetpgrp(0) == os.getpgrp(), os.ttyname(1))"
    )
    terminal = window(f"{sys.executable} -c {shlex.quote(looks)}; sleep 60")
    terminal.shows(r"True True True True /dev/")
    terminal.shows(ROW)
    terminal.type("\x03")
    assert terminal.code() in {130, -signal.SIGINT}
    assert is_as_it_was(terminal)
