r"""The controlling terminal, lent to the command's process group and taken back.

A terminal has one process group in the foreground. Only that group may read from it or set its modes, and only that group
gets the signals of Ctrl-C, Ctrl-\ and Ctrl-Z. The command's group is not ours, so it must be lent the terminal:

- At the start if we are alone in our job, as after `$ creditguard run -- CMD`: the command is in the foreground from its
  first instruction.
- When it first asks, if others share our job: a script or make above us, a pager behind us in a pipeline. Ctrl-C must go
  on reaching the script, and the pager its keys; what reaches us is passed on to the command like any other signal. (To
  ask is to read from the terminal or to set its modes, which stops the command with SIGTTIN or SIGTTOU.)
- Never while our own job is in the background. `fg` continues us, and then the command gets what we got.
"""

from __future__ import annotations

import os
import stat
import termios


class Terminal:
    """The terminal of our session. Its errors (it hung up) are nobody's business; to use it, SIGTTOU must be ignored."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._home = os.getpgrp()
        self._borrower: int | None = None
        self._modes: list[int | list[bytes | int]] | None = None

    @classmethod
    def controlling(cls) -> Terminal | None:
        """Wherever our streams are redirected to. None without a terminal: under cron, in most containers."""
        try:
            return cls(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        except OSError:
            return None

    def close(self) -> None:
        os.close(self._fd)

    @property
    def ours(self) -> bool:
        """Our own group is in the foreground."""
        return self._foreground() == self._home

    @property
    def lent(self) -> bool:
        """The borrower is in the foreground. It no longer is when the job was stopped and goes on in the background."""
        return self._borrower is not None and self._foreground() == self._borrower

    @property
    def alone(self) -> bool:
        """Nobody else is in our job, as far as one can tell: we lead it, and it is no pipeline."""
        return self._home == os.getpid() and not any(_is_pipe(fd) for fd in (0, 1, 2))

    @property
    def orphaned(self) -> bool:
        """No shell above us minds our job, so it can neither be stopped from the keyboard nor continued."""
        session, parent = os.getsid(0), os.getppid()
        try:
            return self._home == session or not parent or os.getsid(parent) != session
        except OSError:
            return True

    def lend(self, group: int) -> bool:
        """Put `group` into the foreground, if it is ours to give."""
        if not self.ours:
            return False
        try:
            self._modes = termios.tcgetattr(self._fd)
            os.tcsetpgrp(self._fd, group)
        except (OSError, termios.error):
            return False
        self._borrower = group
        return True

    def take_back(self, *, restore: bool) -> None:
        """Be in the foreground again, if the terminal was lent; `restore` its modes, if the borrower was in no state to."""
        if not self.lent and not self._abandoned:
            return
        try:
            os.tcsetpgrp(self._fd, self._home)
            if restore and self._modes:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._modes)
        except (OSError, termios.error):
            pass

    def _foreground(self) -> int:
        try:
            return os.tcgetpgrp(self._fd)
        except OSError:
            return -1

    @property
    def _abandoned(self) -> bool:
        """The borrower passed it on to a group of its own (an interactive shell does) which is gone by now."""
        group = self._foreground()
        if self._borrower is None or group <= 1:
            return False
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False  # closed
