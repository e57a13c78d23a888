"""An advisory lock on a file, waited for in short and even steps, for a bounded time: fairness between processes."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from time import CLOCK_MONOTONIC, clock_gettime

try:
    import fcntl
except ImportError:
    _AVAILABLE = False
else:
    _AVAILABLE = True

# How long a waiter sleeps between two tries: short against a turn of the scheduler, and never longer for having waited longer,
# so that all who wait have the same chance. After a second the lock's holder is not busy but stuck, and there is no hurry.
_STEP = 0.0002
_STEP_LATER = 0.005
_SOON = 1.0


class FileLock:
    """A lock that excludes other processes, not other threads of this one.

    The lock is POSIX's (lockf), which belongs to the process: a forked child does not keep its killed parent's lock alive, as
    it would with flock. Where locks or the file cannot be had, `take` succeeds at once: the lock is a courtesy.
    """

    def __init__(self) -> None:
        self._fd = -1

    def open(self, path: Path, like: Path) -> None:
        """Open `path`, made with the mode and owner of the file `like`."""
        self._fd = _open_like(path, like) if _AVAILABLE else -1

    def take(self, wait: float) -> None:
        """Take the lock. Raises TimeoutError when another process keeps it for `wait` seconds."""
        if self._fd < 0:
            return
        start = 0.0
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError):
                pass
            except OSError:
                return  # a file system without locks
            now = clock_gettime(CLOCK_MONOTONIC)  # nothing in Python freezes it (test libraries patch time.monotonic)
            start = start or now
            if now - start > wait:
                raise TimeoutError
            time.sleep(_STEP if now - start < _SOON else _STEP_LATER)

    def release(self) -> None:
        """Give the lock up, if this process has it."""
        if self._fd >= 0:
            with suppress(OSError):  # a file system without locks
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, which gives up the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open_like(path: Path, like: Path) -> int:
    try:
        model = like.stat()
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.fchmod(fd, model.st_mode & 0o777)
            if os.geteuid() == 0:
                os.fchown(fd, model.st_uid, model.st_gid)
            return fd
    except OSError:
        return -1
