"""Run a command so that nobody can tell that we are there: its streams, terminal, signals and exit code are its own.

Two processes are started, and no Python code runs between fork and exec (other threads may hold any lock by then):

    us  -----+--- guardian   first member of a new process group; waits for us to vanish
             +--- command    second member of that group

**The guardian** (`guardian`) kills the group should we die, by SIGKILL even, so that nothing runs on unguarded.

**Signals** are only noted by their handlers, in a pipe, by number; the waiting loop reads them there, passes them on to the
group and learns from SIGCHLD of the command's end. It costs no time while nothing happens and does not care in which
thread a signal arrives. Handlers are there before the command is: what comes too early waits in the pipe, and a signal to
end the run then means that the command is not started at all. A signal that was ignored when we started stays so, for both.

**The end** is the command's own: what it leaves running is left alone, as a shell would. But once the group was told to
end within a time (`kill_after`, `stop`), whatever is in it when the time is up is killed.

**Job control**: when the command is stopped, so are we, for our shell to see; continued, we continue it. Without a terminal
(or with nobody above who could continue us) we stay awake, and keep our promises meanwhile.

Exit codes are those of `env` and `timeout`: 127 not found, 126 found but not executable, 128+N killed by signal N.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from creditguard.cli.guardian import Guardian
from creditguard.cli.terminal import Terminal

if TYPE_CHECKING:
    from typing_extensions import Self  # for type checkers; nothing is imported when this runs

NOT_EXECUTABLE = 126
NOT_FOUND = 127

ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_PASSED_ON = (*ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)

_TO_DEFAULT = (signal.SIGPIPE, *(getattr(signal, name) for name in ("SIGXFSZ", "SIGXFZ") if hasattr(signal, name)))
"""Python ignores these, and does not say whether we were to. Others that we handle are reset by the exec itself."""

_SAME_SIGTERM = 0.1
"""`timeout` signals us and our group, us twice: a SIGTERM so soon after the first is no second one."""

_GLANCE = 0.05
"""How often to look whether the rest of a group is gone: nothing tells us of processes that are not our children."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, or why it did not start."""

    code: int
    """What to exit with."""
    signal: int | None = None
    """What killed the command, or, if it was not started, what would have."""
    started: bool = True
    reason: str | None = None
    """Why it could not be started, for people."""
    told: int | None = None
    """The first signal that we passed on to end it (SIGTERM for `stop`)."""
    interrupted: int | None = None
    """It died of Ctrl-C: the process to send the same to, as the terminal would have done (0: our whole group)."""


def leave(ended: Ended) -> NoReturn:
    """Exit as the command did.

    After Ctrl-C, by the signal itself: the shell shows the same code (130), and ends its loop, too, as it would have.
    """
    if ended.interrupted is not None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(ended.interrupted, signal.SIGINT)
    sys.exit(ended.code)


def plug_closed_streams() -> None:
    """If 0, 1 or 2 are closed, open /dev/null there, for ourselves alone: else our next socket becomes somebody's stderr."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def inherited_environment() -> dict[str, str]:
    """The environment as we got it. Python itself may have set LC_CTYPE (PEP 538): under cron, for one, it does."""
    environment = dict(os.environ)
    environment.pop("", None)  # `=x`, without a name: Python reads it, and would not pass it on
    if environment.get("LC_CTYPE") in {"C.UTF-8", "C.utf8", "UTF-8"}:
        with suppress(OSError):
            entries = Path("/proc/self/environ").read_bytes().split(b"\0")
            before = dict(entry.partition(b"=")[::2] for entry in entries)
            if b"LC_CTYPE" in before:
                environment["LC_CTYPE"] = os.fsdecode(before[b"LC_CTYPE"])
            else:
                del environment["LC_CTYPE"]
    return environment


class Child:
    """One command. While the context is open, signals are the command's: none of them ends or interrupts us.

    For the main thread, except `stop` and `on_vanishing`. `while_stopped` is entered when we stop with the command;
    `when_killed` is what the guardian does, as a line of shell, should we be killed.
    """

    def __init__(
        self,
        *,
        kill_after: float | None = None,
        while_stopped: Callable[[], AbstractContextManager[None]] = nullcontext,
        when_killed: str = ":",
    ) -> None:
        self._kill_after = kill_after
        self._while_stopped = while_stopped
        self._when_killed = self._will = when_killed
        self._pid: int | None = None
        self._guardian: Guardian | None = None
        self.group: int = 0
        """The command's process group; 0 before its start."""
        self._terminal: Terminal | None = None
        self._wants_terminal = False
        self._deadline: float | None = None
        self._told: int | None = None
        self._first_sigterm: float | None = None
        self._stop_within: float | None = None
        self._lock = threading.Lock()
        self._noted = self._notes = -1

    def __enter__(self) -> Self:
        plug_closed_streams()
        self._noted, self._notes = os.pipe()
        os.set_blocking(self._noted, False)
        os.set_blocking(self._notes, False)
        self._something_noted = select.poll()
        self._something_noted.register(self._noted, select.POLLIN)
        self._wakeup_before = signal.set_wakeup_fd(self._notes, warn_on_full_buffer=False)
        self._handlers_before = {number: signal.getsignal(number) for number in (*_PASSED_ON, signal.SIGCHLD)}
        for number, handler in self._handlers_before.items():
            # Who ignores SIGCHLD hands that on to us, and cannot mean that we shall not learn of the command's end.
            if handler is not signal.SIG_IGN or number == signal.SIGCHLD:
                signal.signal(number, _noted_already)
        self._mask_before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        return self

    def __exit__(self, *_: object) -> None:
        if self._guardian is not None:  # not before: there may have been something to do for it to the end
            self._guardian.end()
            self._guardian = None
        # What comes in between is delivered at the end, to who was there before: that may raise, and finds all in order.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._handlers_before)
        signal.set_wakeup_fd(self._wakeup_before)
        with self._lock:
            os.close(self._notes)
            os.close(self._noted)
            self._notes = -1
        for number, handler in self._handlers_before.items():
            if handler is not None:  # else it was not set by Python, and cannot be put back by it
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask_before)

    def stop(self, grace: float) -> None:
        """Have the command's group end (SIGTERM), and what is left of it killed `grace` seconds later. From any thread."""
        with self._lock:
            self._stop_within = grace
            if self._notes >= 0:
                with suppress(BlockingIOError):  # full: then the loop is awake anyway
                    os.write(self._notes, b"\0")

    def on_vanishing(self, shell_command: str) -> None:
        """What else the guardian does should we be killed, instead of what was said here before. From any thread."""
        self._will = f"{shell_command}; {self._when_killed}"
        if self._guardian:
            self._guardian.will(self._will)

    def run(self, argv: Sequence[str], env: Callable[[], Mapping[str, str]] = inherited_environment) -> Ended:
        """Run the command to its end: it is reaped, and the terminal is ours again. Once for each object.

        `env` is asked for the environment when the guardian is there: what it makes, `when_killed` may remove.

        From its start on we hold neither its stdin nor its stdout: who is at the other end must see them closed when the
        command is done with them, and not only when we have taken our exit reading.
        """
        early = self._read_notes()
        told = next((number for number in early if number in ENDING), None)
        if told is None and self._stop_within is not None:
            told = signal.SIGTERM
        if told is not None:
            return Ended(128 + told, signal=told, started=False, told=told)
        null = -1
        try:
            try:
                null = os.open(os.devnull, os.O_RDWR)  # once the command is there it may be too late to open anything
                self._start(argv, env)
            except OSError as error:
                return not_started(argv, error, guarded=self._guardian is not None)
            if self._guardian and self._terminal and self._terminal.lent:
                for number in self._guardian.missed_keys():
                    self._send(number)
            for stream in (0, 1):
                os.dup2(null, stream, inheritable=False)
            for number in early:
                self._handle(number)
            return self._ended(self._wait())
        finally:
            self._clean_up()
            if null >= 0:
                os.close(null)

    # start

    def _start(self, argv: Sequence[str], env: Callable[[], Mapping[str, str]]) -> None:
        self._guardian = Guardian()
        self.group = self._guardian.group
        self._guardian.will(self._will)
        environment = env()
        to_default = list(_TO_DEFAULT)
        self._terminal = Terminal.controlling()
        if self._terminal:
            before = self._handlers_before[signal.SIGTTOU] = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            if before is not signal.SIG_IGN:
                to_default.append(signal.SIGTTOU)
            self._wants_terminal = self._terminal.alone
            if self._wants_terminal:
                self._terminal.lend(self.group)
        self._pid = _spawn(argv, environment, setpgroup=self.group, setsigmask=self._mask_before, setsigdef=to_default)

    # while it runs

    def _wait(self) -> int:
        while (status := self._reap()) is None:
            self._pause()
        return status

    def _reap(self) -> int | None:
        """The command's wait status, once it has ended. The first process of a container also inherits every orphan."""
        anyone = os.getpid() == 1
        while True:
            pid, status = os.waitpid(-1 if anyone else self._pid or 0, os.WNOHANG | os.WUNTRACED)
            if not pid:
                return None
            if os.WIFSTOPPED(status):
                if pid == self._pid:
                    self._stopped(os.WSTOPSIG(status))
            elif pid == self._pid:
                self._pid = None
                return status
            elif self._guardian and pid == self._guardian.group:
                self._guardian.reaped = True

    def _pause(self, at_most: float | None = None) -> None:
        """Sleep until something happens, and deal with it."""
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            at_most = left if at_most is None else min(left, at_most)
        self._something_noted.poll(None if at_most is None else max(0, at_most) * 1000)
        for number in self._read_notes():
            self._handle(number)
        if self._stop_within is not None:
            grace, self._stop_within = self._stop_within, None
            self._tell(signal.SIGTERM, grace)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._kill()

    def _read_notes(self) -> list[int]:
        """The signals since the last time. Two that came close together may be in either order: one handler interrupts another.

        SIGCONT is put last. To go on after Ctrl-Z and a quick `fg` matters; after `fg` and a quick Ctrl-Z it does no harm.
        """
        try:
            return sorted(os.read(self._noted, 65536), key=signal.SIGCONT.__eq__)
        except BlockingIOError:
            return []

    def _handle(self, number: int) -> None:
        """Do what a signal to us asks for."""
        if number == signal.SIGCONT:
            if self._terminal and self._wants_terminal:
                self._terminal.lend(self.group)
            self._send(signal.SIGCONT)
        elif number in ENDING:
            now = time.monotonic()
            if number == signal.SIGTERM:
                self._first_sigterm = self._first_sigterm or now
                if now - self._first_sigterm >= _SAME_SIGTERM:
                    self._kill()
                    return
            self._tell(number, self._kill_after)
        elif number in _PASSED_ON:
            self._send(number)

    def _tell(self, number: int, grace: float | None) -> None:
        """Pass on a signal to end, which is to be obeyed within the grace, if there is one."""
        self._told = self._told or number
        self._send(number)
        if number in {signal.SIGTERM, signal.SIGHUP}:
            self._send(signal.SIGCONT)  # what is stopped cannot obey
        if grace is not None:
            deadline = time.monotonic() + grace
            self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def _kill(self) -> None:
        self._deadline = None
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with suppress(OSError):
            os.killpg(self.group, number)
        if self._pid is not None:
            with suppress(OSError):
                group = os.getpgid(self._pid)
                if group == self._pid:  # it has made itself a group: interactive shells do
                    os.killpg(group, number)
                elif group != self.group:
                    os.kill(self._pid, number)

    def _stopped(self, number: int) -> None:
        """The command was stopped."""
        terminal = self._terminal
        if not terminal:
            return
        asks = number in {signal.SIGTTIN, signal.SIGTTOU}
        if asks:
            self._wants_terminal = True
            if terminal.lend(self.group):
                self._send(signal.SIGCONT)
                return
        if not terminal.orphaned:
            self._stop_with_it(number if asks else signal.SIGTSTP, everyone=asks or terminal.lent)
        elif asks:
            # It will never get the terminal. The kernel ends a stopped group that was left alone in this way, too.
            self._send(signal.SIGHUP)
            self._send(signal.SIGCONT)
        elif number == signal.SIGTSTP:
            self._send(signal.SIGCONT)  # the key does nothing where no shell could take over

    def _stop_with_it(self, number: int, *, everyone: bool) -> None:
        """Stop ourselves, or all of our job if the terminal would have, until the shell continues us."""
        with self._while_stopped():
            notes = self._stop_until_continued(number, everyone=everyone)
        for note in notes:
            self._handle(note)

    def _stop_until_continued(self, number: int, *, everyone: bool) -> list[int]:
        handler = signal.signal(number, signal.SIG_DFL)
        blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        if everyone:
            os.kill(0, number)
        else:
            signal.pthread_kill(threading.get_ident(), number)
        # Who was faster than we and has us go on, or end, already, must not find us stopped. From here on SIGCONT itself
        # takes back what is pending; if it came before, we do.
        notes = self._read_notes()
        if signal.SIGCONT in notes or not ENDING.isdisjoint(notes):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)  # this is where we stop
        signal.signal(number, handler)
        return notes

    # end

    def _ended(self, status: int) -> Ended:
        if not os.WIFSIGNALED(status):
            return Ended(os.WEXITSTATUS(status), told=self._told)
        number = os.WTERMSIG(status)
        interrupted = None
        if number == signal.SIGINT and self._terminal and not self._terminal.orphaned:
            interrupted = 0 if self._terminal.lent else os.getpid() if self._terminal.ours else None
        if self._terminal:
            self._terminal.take_back(restore=True)
        return Ended(128 + number, signal=number, told=self._told, interrupted=interrupted)

    def _clean_up(self) -> None:
        if self._pid is not None:  # a bug of ours: then, too, nothing runs on unguarded
            self._send(signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = None
        if self._terminal:
            self._terminal.take_back(restore=False)
            self._terminal.close()
            self._terminal = None
        while self._deadline is not None and self._guardian is not None and self._guardian.anyone_left():
            self._pause(_GLANCE)


def not_started(argv: Sequence[str], error: OSError, *, guarded: bool = False) -> Ended:
    """The end of a command that could not be started, since this went wrong; `guarded`: it was the command's own start."""
    # ENOTDIR from a search is a file in PATH where a directory should be; for a name with a slash it is the truth.
    missing = error.errno == errno.ENOENT or (error.errno == errno.ENOTDIR and "/" not in argv[0])
    code = NOT_FOUND if missing and guarded else NOT_EXECUTABLE
    return Ended(code, started=False, reason=f"cannot run {argv[0]!r}: {os.strerror(error.errno or errno.EIO)}")


def _spawn(argv: Sequence[str], env: Mapping[str, str], **options: Any) -> int:
    """As execvp(3): searches PATH, and has a script without `#!` run by the shell."""
    if not argv[0]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    try:
        return os.posix_spawnp(argv[0], list(argv), env, **options)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        import shutil  # takes 5 ms, and is hardly ever needed

        script = argv[0] if "/" in argv[0] else shutil.which(argv[0])
        try:
            return os.posix_spawn("/bin/sh", ["/bin/sh", script or argv[0], *argv[1:]], env, **options)
        except FileNotFoundError:
            raise error from None


def _noted_already(number: int, frame: FrameType | None) -> None:
    """The interpreter has written the number to the pipe before it calls a handler."""
