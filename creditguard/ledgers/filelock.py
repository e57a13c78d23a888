"""An advisory lock on a file, waited for in the kernel, for a bounded time: fairness between processes.

Whoever finds the lock taken blocks, and costs nothing while it does. The kernel wakes those who wait in the order in which they
came, one for each release. Whoever runs just then may take the lock before the one that is woken, so the order is not strict;
but the one that is woken stays first in line. (Tried beside it: many processes that try again every fifth of a millisecond get
next to nothing done, and with longer steps those who have waited long lose to those who come.)

A lock that is waited for in the kernel cannot be given up without a signal, and signals are the host's. So a thread waits in
place of the caller, who waits for the thread, as long as it likes. The thread is started when the lock is first found taken.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from creditguard.process.background import seconds

_STEP = 0.01


class FileLock:
    """A lock that excludes other processes, not other threads of this one, and is used by one thread at a time.

    The lock is POSIX's (lockf), which belongs to the process: a forked child does not keep its killed parent's lock alive, as
    it would with flock. Where locks or the file cannot be had, `take` succeeds at once: the lock is a courtesy.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._waiter: _Waiter | None = None

    def open(self, path: Path, like: Path) -> None:
        """Open `path`, made with the mode and owner of the file `like`."""
        self._fd = _open_like(path, like)

    def take(self, wait: float) -> None:
        """Take the lock. Raises TimeoutError when another process keeps it for `wait` seconds; then this object must be closed."""
        if self._is_taken() and not (self._poll if _stuck else self._block)(wait):
            raise TimeoutError

    def _is_taken(self) -> bool:
        """Whether somebody else has the lock; else it is ours now."""
        if self._fd < 0:
            return False
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            pass  # a file system without locks
        return False

    def _block(self, wait: float) -> bool:
        if self._waiter is None:
            try:
                self._waiter = _Waiter(self._fd)
            except RuntimeError:
                return self._poll(wait)
        return self._waiter.wait(wait)

    def _poll(self, wait: float) -> bool:
        """As `_block`, where the system has no thread to give, and while one of this process waits in vain already: it must not
        become ever more of them."""
        end = seconds() + wait
        while self._is_taken():
            if seconds() > end:
                return False
            time.sleep(_STEP)
        return True

    def release(self) -> None:
        """Give the lock up, if this process has it."""
        if self._fd >= 0:
            with suppress(OSError):  # a file system without locks
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, which gives up the lock."""
        fd, self._fd = self._fd, -1
        waiter, self._waiter = self._waiter, None
        if waiter and waiter.end(fd):
            return
        if fd >= 0:
            os.close(fd)


_stuck: set[int] = set()
"""The threads of this process that wait for a lock whose caller has given up."""

os.register_at_fork(after_in_child=_stuck.clear)


class _Waiter:
    """A thread that takes the lock when it is told to. Only its caller and itself know it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pid = os.getpid()
        self._go, self._got = _thread.allocate_lock(), _thread.allocate_lock()
        self._go.acquire()
        self._got.acquire()
        self._ended = False
        self._closes = False
        _thread.start_new_thread(self._work, ())

    def wait(self, at_most: float) -> bool:
        """Whether the lock was had in time."""
        self._go.release()
        if self._got.acquire(timeout=at_most):
            return True
        _stuck.add(id(self))
        if self._got.acquire(blocking=False):  # just now
            _stuck.discard(id(self))
            return True
        return False

    def end(self, fd: int) -> bool:
        """Let the thread end. Whether it will close the file: it does when it is stuck, as soon as the kernel lets it go."""
        if self._pid != os.getpid():
            return False  # a forked child has no such thread
        self._closes = fd >= 0 and id(self) in _stuck
        closes, self._ended = self._closes, True
        self._go.release()
        return closes

    def _work(self) -> None:
        while True:
            self._go.acquire()
            if self._ended:
                break
            with suppress(OSError):
                fcntl.lockf(self._fd, fcntl.LOCK_EX)
            self._got.release()
            _stuck.discard(id(self))
        if self._closes:
            os.close(self._fd)


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
