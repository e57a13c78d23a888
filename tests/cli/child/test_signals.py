"""Signals to the wrapper are the command's; what does not stop is ended; nothing runs on when the wrapper is gone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import eventually, state

Wrap = Callable[..., Any]
Program = Callable[..., Path]

PASSED_ON = ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"]
OTHERS = ["WINCH", "TSTP", "CONT"]
CONFIRMS = (
    "import signal, sys, time; number = int(sys.argv[1]); signal.pthread_sigmask(signal.SIG_BLOCK, [number]); "
    "print('ready', flush=True); signal.sigwait([number]); time.sleep(float(sys.argv[2])); print('got', number); sys.exit(9)"
)
"""Tells of a signal, and leaves no moment in which it could miss it, as a shell does between a trap and a `sleep`."""
SLOW = "trap 'sleep 0.3; exit 9' TERM; sh -c 'echo ready; exec sleep 60' & wait"
WAITS = "echo ready; exec sleep 60"
IGNORES = "trap '' TERM INT HUP; echo ready; exec sleep 60"
FAMILY = "sh -c 'echo grandchild; exec sleep 60'"
STUBBORN_FAMILY = "trap '' TERM; sh -c 'echo grandchild; exec sleep 60' & wait"


@pytest.mark.parametrize("name", [*PASSED_ON, *OTHERS])
def test_a_command_that_handles_a_signal_ends_in_its_own_way(wrap: Wrap, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    wrapper = wrap(sys.executable, "-ISc", CONFIRMS, str(int(number)), "0")
    assert wrapper.line() == b"ready"
    wrapper.send_signal(number)
    assert wrapper.line() == b"got %d" % number
    assert wrapper.code() == 9


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1"])
def test_a_command_that_does_not_is_killed_by_the_signal(wrap: Wrap, name: str) -> None:
    wrapper = wrap("sh", "-c", WAITS)
    assert wrapper.line() == b"ready"
    wrapper.send_signal(signal.Signals[f"SIG{name}"])
    assert wrapper.code() == 128 + signal.Signals[f"SIG{name}"]


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1"])
def test_a_signal_reaches_the_whole_group(wrap: Wrap, witness: Any, name: str) -> None:
    # The shell waits for its foreground command: only because that one is told, too, does this end.
    wrapper = wrap("sh", "-c", f"trap 'exit 9' {name}; {FAMILY}; exit 1", pass_fds=[witness.fd])
    assert wrapper.line() == b"grandchild"
    wrapper.send_signal(signal.Signals[f"SIG{name}"])
    assert wrapper.code() == 9
    assert witness.all_gone()


def test_a_second_sigterm_kills(wrap: Wrap, witness: Any) -> None:
    wrapper = wrap("sh", "-c", IGNORES, pass_fds=[witness.fd])
    assert wrapper.line() == b"ready"
    wrapper.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        wrapper.wait(0.2)
    wrapper.terminate()
    assert wrapper.code() == 137
    assert witness.all_gone()


def test_two_sigterms_at_once_are_one(wrap: Wrap) -> None:
    """As `timeout creditguard run ...` sends them: to the process, and to its group."""
    wrapper = wrap("sh", "-c", SLOW, start_new_session=True)
    assert wrapper.line() == b"ready"
    wrapper.terminate()
    os.killpg(wrapper.pid, signal.SIGTERM)
    assert wrapper.code() == 9


def test_under_timeout(wrapper: Path) -> None:
    done = subprocess.run(["timeout", "--preserve-status", "1", wrapper, "sh", "-c", SLOW], stdout=subprocess.PIPE)
    assert (done.stdout, done.returncode) == (b"ready\n", 9)


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_what_ignores_a_signal_is_killed_in_time(wrap: Wrap, witness: Any, name: str) -> None:
    wrapper = wrap("sh", "-c", IGNORES, kill_after=0.2, pass_fds=[witness.fd])
    assert wrapper.line() == b"ready"
    told = time.monotonic()
    wrapper.send_signal(signal.Signals[f"SIG{name}"])
    assert wrapper.code() == 137
    assert time.monotonic() - told >= 0.2
    assert witness.all_gone()


def test_no_signal_but_one_to_end_starts_the_time(wrap: Wrap) -> None:
    job = "trap 'echo usr1' USR1; trap 'exit 9' TERM; sh -c 'echo ready; exec sleep 60' & wait; cat"
    wrapper = wrap("sh", "-c", job, kill_after=0.1, stdin=subprocess.PIPE)
    assert wrapper.line() == b"ready"
    wrapper.send_signal(signal.SIGUSR1)
    assert wrapper.line() == b"usr1"
    with pytest.raises(subprocess.TimeoutExpired):
        wrapper.wait(0.3)
    wrapper.terminate()  # reaches `cat`, too
    assert wrapper.code() == 9


def test_grandchildren_are_killed_in_time_too(wrap: Wrap, witness: Any) -> None:
    wrapper = wrap("sh", "-c", STUBBORN_FAMILY, kill_after=0.1, pass_fds=[witness.fd])
    assert wrapper.line() == b"grandchild"
    wrapper.terminate()
    assert wrapper.code() == 137
    assert witness.all_gone()


def test_grandchildren_that_outlast_an_obedient_command_are_killed_in_time(wrap: Wrap, witness: Any) -> None:
    job = "trap 'exit 9' TERM; (trap '' TERM; sh -c 'echo grandchild; exec sleep 60') & wait"
    wrapper = wrap("sh", "-c", job, kill_after=0.3, pass_fds=[witness.fd])
    assert wrapper.line() == b"grandchild"
    wrapper.terminate()
    assert wrapper.code() == 9
    assert witness.all_gone()


def test_grandchildren_that_end_in_time_are_not_waited_for_longer(wrap: Wrap, witness: Any) -> None:
    job = "trap 'exit 9' TERM; \"$@\" & wait"
    grandchild = [sys.executable, "-ISc", CONFIRMS, "15", "0.2"]
    wrapper = wrap("sh", "-c", job, "job", *grandchild, kill_after=15, pass_fds=[witness.fd])
    assert wrapper.line() == b"ready"
    told = time.monotonic()
    wrapper.terminate()
    assert wrapper.line() == b"got 15"
    assert wrapper.code() == 9
    assert time.monotonic() - told < 10
    assert witness.all_gone()


def test_a_grandchild_that_outlives_its_parent_is_left_alone(wrap: Wrap, witness: Any) -> None:
    wrapper = wrap("sh", "-c", "sleep 60 > /dev/null & echo $!; exit 5", pass_fds=[witness.fd])
    grandchild = int(wrapper.line())
    assert wrapper.code() == 5
    assert not witness.all_gone(0.1)
    os.kill(grandchild, signal.SIGKILL)
    assert witness.all_gone()


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_what_was_ignored_stays_ignored_for_both(wrap: Wrap, wrapper: Path, name: str) -> None:
    """nohup, and `trap '' INT`."""
    number = signal.Signals[f"SIG{name}"]
    job = f"{sys.executable} -Sc 'import signal; print(signal.getsignal({number:d}).name)'; read x; exit 6"
    nohup = wrap("-c", f'trap "" {name}; exec "$0" "$@"', wrapper, "sh", "-c", job, program="sh", stdin=subprocess.PIPE)
    assert nohup.line() == b"SIG_IGN"
    nohup.send_signal(number)
    nohup.stdin.write(b"\n")
    nohup.stdin.flush()
    assert nohup.code() == 6


def test_the_command_has_the_dispositions_that_a_program_expects(wrap: Wrap) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and we handle others; none of it may be seen."""
    wrapper = wrap("grep", "^Sig[BI]", "/proc/self/status")
    blocked, ignored = (int(wrapper.line().split()[1], 16) for _ in range(2))
    of_the_c_library = 1 << 31 | 1 << 32  # numbers 32 and 33: glibc before 2.38 has spawned programs ignore them
    assert (blocked, ignored & ~of_the_c_library) == (0, 0)


def test_blocked_signals_stay_blocked_for_the_command_alone(wrap: Wrap, wrapper: Path) -> None:
    block = "import os, signal, sys; signal.pthread_sigmask(0, [signal.SIGCHLD, signal.SIGUSR1]); os.execv(sys.argv[1], sys.argv[1:])"
    blocked = wrap("-c", block, wrapper, "grep", "^SigBlk", "/proc/self/status", program=sys.executable)
    assert int(blocked.line().split()[1], 16) == 1 << (signal.SIGCHLD - 1) | 1 << (signal.SIGUSR1 - 1)
    assert blocked.code() == 0


def test_started_by_a_process_that_ignores_sigchld(wrap: Wrap, wrapper: Path) -> None:
    ignore = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    assert wrap("-c", ignore, wrapper, "sh", "-c", "exit 7", program=sys.executable).code() == 7


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_told_to_end_before_it_starts_the_command_never_runs(wrap: Wrap, program: Program, name: str) -> None:
    early = program(inside=f"os.kill(os.getpid(), {signal.Signals[f'SIG{name}']:d})", after="print(ended.started)")
    wrapper = wrap("echo", "ran", program=early)
    assert wrapper.communicate()[0] == b"False\n"
    assert wrapper.returncode == 128 + signal.Signals[f"SIG{name}"]


def test_stopped_before_it_starts_the_command_never_runs(wrap: Wrap, program: Program) -> None:
    wrapper = wrap("echo", "ran", program=program(inside="child.stop(5)"))
    assert wrapper.communicate()[0] == b""
    assert wrapper.returncode == 143


def test_other_signals_before_the_start_are_the_commands(wrap: Wrap, program: Program) -> None:
    early = program(inside="import signal; os.kill(os.getpid(), signal.SIGUSR2)")
    assert wrap("sleep", "60", program=early).code() == 128 + signal.SIGUSR2


@pytest.mark.parametrize("_", range(10))
def test_a_signal_in_the_middle_of_the_start_is_not_lost(wrap: Wrap, program: Program, _: int) -> None:
    """Sent by another thread, at any moment of it."""
    sends = """
    import signal, time
    moment = float(os.environ["MOMENT"])
    def send():
        end = time.perf_counter() + moment
        while time.perf_counter() < end: pass
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=send, daemon=True).start()
    """
    racing = program(inside=sends.strip())
    wrapper = wrap("sleep", "60", program=racing, env={**os.environ, "MOMENT": str(random.uniform(0, 0.003))})
    assert wrapper.code() == 143


def test_signals_after_the_end_do_not_disturb_us(wrap: Wrap, program: Program) -> None:
    settles = program(
        after="import signal; [os.kill(os.getpid(), n) for n in (1, 2, 3, 10, 12, 15, 20)]; print('settled')"
    )
    wrapper = wrap("sh", "-c", "exit 7", program=settles, stderr=subprocess.PIPE)
    assert wrapper.communicate() == (b"", b"")  # our stdout was given up to the command
    assert wrapper.returncode == 7


def test_handlers_are_as_before_afterwards(program: Program) -> None:
    code = """
import signal
from creditguard.cli.child import Child
def run(argv):
    with Child() as child:
        return child.run(argv)
everything = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
def as_it_is():
    fd = signal.set_wakeup_fd(-1)
    return {n: signal.getsignal(n) for n in everything}, signal.pthread_sigmask(signal.SIG_BLOCK, []), fd
def mine(*_): ...
signal.signal(signal.SIGTERM, mine)
before = as_it_is()
assert run(["true"]).code == 0
assert run(["/"]).code == 126
assert as_it_is() == before
"""
    subprocess.run([sys.executable, "-Werror", "-c", code], check=True)


# stop


STOPPABLE = """
def wait_and_stop():
    os.read(int(os.environ["TOLD"]), 1)
    child.stop(float(os.environ["GRACE"]))
threading.Thread(target=wait_and_stop, daemon=True).start()
"""


@pytest.mark.parametrize(
    ("job", "grace", "code"),
    [
        ("echo ready; exec sleep 60", 15, 143),
        ("trap '' TERM; echo ready; exec sleep 60", 0.1, 137),
        ("trap 'exit 9' TERM; sh -c 'echo ready; exec sleep 60' & wait", 15, 9),
    ],
)
def test_stop_ends_the_group_from_another_thread(
    wrap: Wrap, program: Program, witness: Any, job: str, grace: float, code: int
) -> None:
    theirs, ours = os.pipe()
    env = {**os.environ, "TOLD": str(theirs), "GRACE": str(grace)}
    stoppable = program(inside=STOPPABLE.strip().replace("\n", "\n    "), after="assert ended.told == 15")
    wrapper = wrap("sh", "-c", job, program=stoppable, env=env, pass_fds=[theirs, witness.fd])
    os.close(theirs)
    assert wrapper.line() == b"ready"
    os.write(ours, b"x")
    os.close(ours)
    assert wrapper.code() == code
    assert witness.all_gone()


# the wrapper is stopped, or killed


def test_a_stopped_wrapper_finds_everything_as_it_should_be(wrap: Wrap) -> None:
    wrapper = wrap("sh", "-c", "echo $$; read x; exit 9", stdin=subprocess.PIPE)
    command = int(wrapper.line())
    wrapper.send_signal(signal.SIGSTOP)
    os.waitpid(wrapper.pid, os.WUNTRACED)
    eventually(lambda: state(command) == "S", "asleep")  # SIGSTOP cannot be handled, so it cannot be passed on
    wrapper.stdin.write(b"\n")
    wrapper.stdin.close()
    wrapper.stdin = None
    wrapper.send_signal(signal.SIGCONT)
    assert wrapper.code() == 9


def test_sigtstp_and_sigcont_stop_and_continue_the_command_and_we_stay_awake(wrap: Wrap) -> None:
    """A batch system suspends its jobs like this. The lease on the hold must be renewed meanwhile."""
    wrapper = wrap("sh", "-c", "echo $$; exec sleep 60", start_new_session=True)
    command = int(wrapper.line())
    for _ in range(3):
        wrapper.send_signal(signal.SIGTSTP)
        eventually(lambda: state(command) == "T", "stopped")
        eventually(lambda: state(wrapper.pid) == "S", "asleep")
        wrapper.send_signal(signal.SIGCONT)
        eventually(lambda: state(command) == "S", "continued")
    wrapper.send_signal(signal.SIGTSTP)
    eventually(lambda: state(command) == "T", "stopped")
    wrapper.terminate()
    assert wrapper.code() == 143


def test_killed_the_wrapper_takes_everything_with_it(wrap: Wrap, witness: Any) -> None:
    """Grandchildren too: `bash job.sh` is only a shell that waits for what spends the credits."""
    wrapper = wrap("sh", "-c", STUBBORN_FAMILY, pass_fds=[witness.fd])
    assert wrapper.line() == b"grandchild"
    wrapper.kill()
    assert wrapper.code() == -9
    assert witness.all_gone()


def test_killed_while_its_command_is_stopped_and_the_guardian_too(wrap: Wrap, witness: Any) -> None:
    wrapper = wrap("sh", "-c", "echo $$; kill -STOP 0", pass_fds=[witness.fd], start_new_session=True)
    command = int(wrapper.line())
    eventually(lambda: state(command) == "T", "stopped")
    wrapper.kill()
    assert witness.all_gone()


def test_killed_while_what_outlasts_the_command_has_its_time(wrap: Wrap, witness: Any) -> None:
    job = f"({STUBBORN_FAMILY}) & trap 'exit 0' TERM; echo $$; while :; do sleep 0.05; done"
    wrapper = wrap("sh", "-c", job, kill_after=300, pass_fds=[witness.fd])
    command = next(int(line) for line in (wrapper.line(), wrapper.line()) if line != b"grandchild")
    wrapper.terminate()
    eventually(lambda: not state(command), "reaped")
    wrapper.kill()
    assert wrapper.code() == -9
    assert witness.all_gone()


def test_a_bug_of_ours_leaves_nothing_running_either(wrap: Wrap, witness: Any, program: Program) -> None:
    buggy = program(inside="child._pause = lambda: os.read(int(os.environ['BUG']), 1) and 1 / 0")
    theirs, ours = os.pipe()
    env = {**os.environ, "BUG": str(theirs)}
    wrapper = wrap(
        "sh", "-c", STUBBORN_FAMILY, program=buggy, env=env, pass_fds=[theirs, witness.fd], stderr=subprocess.DEVNULL
    )
    assert wrapper.line() == b"grandchild"
    os.close(theirs)
    os.write(ours, b"x")
    os.close(ours)
    assert wrapper.code() == 1
    assert witness.all_gone()


@pytest.mark.parametrize("_", range(10))
def test_killed_at_any_moment_nothing_is_left(wrap: Wrap, program: Program, witness: Any, _: int) -> None:
    kills = """
    import signal, time
    moment = float(os.environ["MOMENT"])
    def send():
        end = time.perf_counter() + moment
        while time.perf_counter() < end: pass
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=send, daemon=True).start()
    """
    env = {**os.environ, "MOMENT": str(random.uniform(0, 0.004))}
    wrapper = wrap("sleep", "60", program=program(inside=kills.strip()), env=env, pass_fds=[witness.fd])
    assert wrapper.code() == -9
    assert witness.all_gone()


def test_without_a_shell_for_the_guardian(wrap: Wrap, program: Program, witness: Any) -> None:
    """Some containers have none."""
    missing = """
spawn = os.posix_spawn
def without_shell(path, *args, **options):
    return spawn("/nonexistent" if path == "/bin/sh" else path, *args, **options)
os.posix_spawn = without_shell
"""
    wrapper = wrap("sleep", "60", program=program(before=missing), pass_fds=[witness.fd])
    time.sleep(0.3)
    wrapper.kill()
    assert witness.all_gone()
