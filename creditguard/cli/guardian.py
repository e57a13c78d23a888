"""The guardian: first member of the command's process group, which it kills should we vanish.

It is a shell that reads from a pipe, the lifeline, which only we hold open. Should we die, by SIGKILL even, it reads the end
of file and kills its group, itself included. This reaches the command's own children too, and works on every POSIX system;
Linux's parent-death signal would reach the command alone, which is often only a shell that waits for the real job. It
holds the group's id, so that no signal of ours can reach a stranger, and lets us put the group into the terminal's
foreground before the command is in it. Lines that come by the lifeline are its will: it does the last one before it kills. It
blocks every signal. What it does not reach: what left the group (`setsid`), what runs as another user (`sudo`), and anything once
the guardian itself was killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class Guardian:
    """A guardian that runs, from construction (which may raise OSError) to `end`."""

    def __init__(self) -> None:
        lifeline_end, self._lifeline = os.pipe()
        try:
            self.group: int = _start(lifeline_end)
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline_end)
        self.reaped: bool = False
        """Whoever reaps every child, as the first process of a container does, may have reaped this one."""

    def will(self, shell_command: str) -> None:
        """What it does before it kills, should we vanish; instead of what was said before."""
        with suppress(OSError):
            os.write(self._lifeline, f"{shell_command}\n".encode())

    def missed_keys(self) -> Iterator[int]:
        """Keys pressed when the group had the terminal and the command was not yet in it: blocked here, they are kept."""
        with suppress(OSError, IndexError):  # gVisor's /proc, and FreeBSD's, do not tell
            _, _, rest = Path(f"/proc/{self.group}/status").read_bytes().partition(b"ShdPnd:")
            pending = int(rest.split()[0], 16)
            yield from (key for key in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP) if pending >> (key - 1) & 1)

    def anyone_left(self) -> bool:
        """Somebody else lives in the group. Who only waits to be reaped does not; in many a container nobody ever reaps."""
        if not Path("/proc/self/stat").exists():
            self.end()  # else it could not be told from the rest
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        seen, alive = False, False
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _, its_group, *_ = stat.read_bytes().rpartition(b")")[2].split()
                if int(its_group) == self.group:
                    seen = True
                    alive = alive or (state not in {b"Z", b"X"} and stat.parent.name != str(self.group))
        return alive or not seen

    def end(self) -> None:
        """Let the group be."""
        if not self.reaped:
            os.kill(self.group, signal.SIGKILL)
            os.waitpid(self.group, 0)
            self.reaped = True
        if self._lifeline >= 0:
            os.close(self._lifeline)  # not before the guardian is gone
            self._lifeline = -1


def _start(lifeline_end: int) -> int:
    streams = [
        (os.POSIX_SPAWN_DUP2, lifeline_end, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # A shell lets through what it blocked as soon as it waits for a program, as a will may have: a closed terminal would hit it there.
    # Only then, for what is ignored is not kept for `missed_keys`.
    ignoring = "trap '' HUP INT QUIT TERM USR1 USR2 ALRM TSTP TTIN TTOU"
    # Not our name: who ends us by name (pkill -9 -f) must not end the guardian too.
    name = f"guardian of {os.getpid()}"
    everything = signal.valid_signals()
    try:
        # By a trap: a will that is no shell command ends the shell.
        script = f'trap "kill -s KILL 0" EXIT; while read -r each; do will=$each; done; {ignoring}; eval "$will"'
        argv = ["sh", "-c", script, name]
        return os.posix_spawn("/bin/sh", argv, {}, file_actions=streams, setpgroup=0, setsigmask=everything)
    except (FileNotFoundError, PermissionError):  # there are containers without a shell
        argv = [sys.executable, "-ISc", "import os\nwhile os.read(0, 9999): pass\nos.kill(0, 9)", name]
        return os.posix_spawn(sys.executable, argv, {}, file_actions=streams, setpgroup=0, setsigmask=everything)
