"""Who this process is, and whether another process is certainly dead.

A ledger frees the holds of a dead owner at once, so `is_dead` says yes only where there is no doubt: the owner ran on this
very kernel and in this very pid namespace, and its pid is gone, or belongs to a process that started at another time, or is
a zombie that its parent has not reaped yet. Whoever cannot be seen from here (another host, another container, another boot,
a hidden /proc, a system without boot ids) is never called dead; the end of its lease decides.

By which clock, `clock` says: all processes of a running machine share the kernel's, but a time namespace shifts it, and a
library that is loaded before the C library fakes it. So each process says how its own clock relates to the kernel's.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from creditguard.rules.values import Owner

_PROC = "/proc"
# On Linux CLOCK_MONOTONIC rests while the machine is suspended and CLOCK_BOOTTIME does not; on macOS the names are others.
RUNNING: int = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
ELAPSED: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
KERNEL = "kernel"
# The kernel gives the namespaces that a machine boots with these fixed numbers; they say nothing beyond the host's name.
_INITIAL_NAMESPACES = {"pid:[4026531836]", "time:[4026531834]"}

_this: Owner | None = None


def this_process() -> Owner:
    """This process. The id is random and lives as long as the process does: a forked child is another owner.

    Raises OSError while it cannot be found out, for lack of a file descriptor or of memory.
    """
    global _this  # noqa: PLW0603 - the one place that remembers it
    owner = _this
    if owner is None or owner.pid != os.getpid():
        owner = _this = _look_at_myself()
    return owner


def is_dead(owner: Owner) -> bool:
    """Whether the owner has certainly ended. False when it lives, and also when that cannot be seen from here."""
    me = this_process()
    if owner.id == me.id or not me.boot or (owner.host, owner.boot) != (me.host, me.boot) or owner.pid <= 0:
        return False
    try:
        state, threads, started = _stat(str(owner.pid))
    except FileNotFoundError:
        return _is_gone(owner.pid)  # not in /proc, or hidden there (hidepid), or there is no /proc
    except (OSError, ValueError, IndexError):
        return False
    if owner.started and started != owner.started:
        return True
    # A main thread that has exited shows as a zombie while other threads of the process go on.
    return state in "ZXx" and threads <= 1


class Clock(NamedTuple):
    """The clocks of this process. Times on clocks of one name can be compared, once `running` (of RUNNING) or `elapsed` (of
    ELAPSED) has been taken off: the seconds by which this process's are ahead. A clock without a name is not to be relied on.
    """

    name: str
    running: float = 0.0
    elapsed: float = 0.0


def clock() -> Clock:
    """This process's clocks: the kernel's, or its own where it cannot tell how they relate to the kernel's."""
    mine = Clock("")
    try:
        mine = Clock(this_process().id)
        if _namespace("time") == _namespace("time_for_children"):  # else it has left its time namespace, all but itself
            shifts = {line.split()[0]: _shift(line) for line in _read("self", "timens_offsets").splitlines()}
            mine = Clock(KERNEL, shifts["monotonic"], shifts["boottime"])
    except FileNotFoundError:
        # A kernel without time namespaces, or a system without /proc; where only /proc is missing nobody can tell.
        if os.uname().sysname != "Linux" or os.path.exists(f"{_PROC}/self/stat"):  # noqa: PTH110
            mine = Clock(KERNEL)
    except (OSError, ValueError, KeyError):
        pass
    return mine if _is_honest(mine) else Clock("")


def _is_honest(mine: Clock) -> bool:
    """Whether the C library tells the time that the kernel does, as far as can be seen: /proc is not faked along with it."""
    before = time.clock_gettime(ELAPSED)
    try:
        uptime = float(_read("uptime").split()[0])
    except FileNotFoundError:
        return True  # hidden (ProcSubset=pid), or no /proc
    except (OSError, ValueError, IndexError):
        return False
    running, elapsed = time.clock_gettime(RUNNING), time.clock_gettime(ELAPSED)
    return before - 1.0 < uptime < elapsed + 1.0 and running - mine.running < elapsed - mine.elapsed + 1.0


def _shift(line: str) -> float:
    _, seconds, nanoseconds = line.split()
    return int(seconds) + int(nanoseconds) / 1e9


def _look_at_myself() -> Owner:
    pid = os.getpid()
    host, boot, started = os.uname().nodename, "", ""
    try:
        pid_in_proc, _, rest = _read("self", "stat").partition(" ")
        if int(pid_in_proc) == pid and rest:  # else /proc shows another pid namespace: nobody can be looked up there
            # Start times are told on the reader's boot clock, which a time namespace shifts.
            host = "@".join([host, *_namespaces()])
            boot = _read("sys", "kernel", "random", "boot_id").strip()
            started = _stat("self")[2]
    except FileNotFoundError:
        boot = _boot_session()
    except OSError as error:
        from errno import EMFILE, ENFILE, ENOMEM

        if error.errno in (EMFILE, ENFILE, ENOMEM):
            raise  # it passes, and what is found now is remembered for good
    except (ValueError, IndexError):
        pass
    return Owner(os.urandom(8).hex(), host, boot, pid, started)


def _namespaces() -> list[str]:
    links = []
    for kind in ("pid", "time"):
        try:
            link = _namespace(kind)
        except FileNotFoundError:
            continue  # a kernel without time namespaces
        if link not in _INITIAL_NAMESPACES:
            links.append(link.replace(":[", "").rstrip("]"))
    return links


def _namespace(kind: str) -> str:
    return os.readlink(f"{_PROC}/self/ns/{kind}")  # noqa: PTH115


def _stat(pid: str) -> tuple[str, int, str]:
    """State, number of threads and start time. The second field is the command's name: it may hold blanks and brackets."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return fields[0], int(fields[17]), fields[19]


def _read(*path: str) -> str:
    with open("/".join((_PROC, *path)), encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - pathlib is slow to load
        return file.read()


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _boot_session() -> str:
    """The boot's id on macOS, where there is no /proc; elsewhere none is known."""
    if os.uname().sysname != "Darwin":
        return ""
    try:
        import ctypes

        answer = ctypes.create_string_buffer(64)
        size = ctypes.c_size_t(len(answer))
        failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", answer, ctypes.byref(size), None, 0)
    except (ImportError, OSError, AttributeError):
        return ""
    return "" if failed else answer.value.decode("ascii", "replace")


def _forget() -> None:
    global _this  # noqa: PLW0603
    _this = None


# By pid alone, a child that is the first of a new pid namespace could take itself for its parent: both are pid 1.
os.register_at_fork(after_in_child=_forget)
