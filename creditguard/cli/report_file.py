"""`--report-file`: the report of a run as JSON, for whatever comes after the job. Always whole: written aside, then renamed.

Whatever has become of the place by the time that the command has ended, nothing is raised and nothing is waited for.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import select
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

from creditguard.errors import ConfigurationError, CreditGuardError
from creditguard.rules.report import Report

Stage = Literal["preflight", "command"]

_STREAMS = {"-": 1, "/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})", re.ASCII)
_PATIENCE_MS = 5_000
"""How long somebody at the other end of a pipe may take to make room."""


class ReportFile:
    """Where the report goes; nowhere, if no path was given."""

    def __init__(self, path: str | None) -> None:
        """Raises ConfigurationError if the file could not be written later: better before the job than after it.

        `-` is stdout. It and other open descriptors are kept, for ourselves alone: by the end we no longer have the
        command's stdout, and its reader sees the end of file when the report has come.
        """
        self._path = path
        self._descriptor: int | None = None
        if path is None:
            return
        try:
            number = _descriptor(path)
            if number is None:
                _look_at(path)
            else:
                self._descriptor = _kept(number)
        except OSError as error:
            raise ConfigurationError(f"--report-file: {path}: {error.strerror}", "--report-file") from None

    def write(
        self, report: Report | None, stage: Stage, exit_code: int, error: CreditGuardError | None = None
    ) -> str | None:
        """Write the report; what went wrong, if anything did, as a line for people.

        `stage` tells a code of ours (`preflight`: nothing ran) from the same code of CMD's own (`command`).
        """
        if self._path is None:
            return None
        content: dict[str, object] = {"schema": 1, "stage": stage, "exit_code": exit_code}
        if error:
            content |= {"error": type(error).__name__, "reason": str(error)}
        try:
            content |= report.to_dict() if report else {}
            text = (json.dumps(content, indent=2) + "\n").encode()
            if self._descriptor is not None:
                _send(self._descriptor, text)
            else:
                write_whole(self._path, text)
        except Exception as failure:  # the exit code stays the command's
            reason = (isinstance(failure, OSError) and failure.strerror) or f"{type(failure).__name__}: {failure}"
            return f"--report-file: {self._path} cannot be written: {reason}"
        return None


def write_whole(path: str, content: bytes) -> None:
    """Write a file so that all of it is there or nothing of it; into a device or a pipe it is sent. Raises OSError."""
    if is_special(path):
        with os.fdopen(_open_special(path), "wb", 0) as file:
            _send(file.fileno(), content)
    else:
        _replace(path, content)


def _descriptor(path: str) -> int | None:
    match = _DESCRIPTOR.fullmatch(path)
    return int(match[1]) if match else _STREAMS.get(path)


def _kept(number: int) -> int:
    if number == 1 and sys.stdout is None:  # by now /dev/null is in its place
        raise OSError(errno.EBADF, "stdout is closed")
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "it is open for reading only")
    return os.dup(number)


def _look_at(path: str) -> None:
    folder = Path(path).parent
    if os.path.isdir(path) or os.path.basename(path) in {"", "."}:  # noqa: PTH112, PTH119 - as for all here: no error for a name that is too long
        raise OSError(errno.EISDIR, "it is a directory")
    if is_special(path):
        _look_at_special(path)
    elif not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):  # noqa: PTH112
        raise OSError(errno.EACCES, f"{folder} is not a directory that can be written to")
    else:
        # It alone can tell: of a folder that is gone but still ours, of /proc, of a quota.
        descriptor, aside = _open_aside(path)
        os.close(descriptor)
        aside.unlink()


def is_special(path: str) -> bool:
    """A device, a FIFO, a socket: to be written to, and not to be replaced by a file."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _look_at_special(path: str) -> None:
    mode = os.stat(path).st_mode  # noqa: PTH116
    if stat.S_ISSOCK(mode):
        raise OSError(errno.ENXIO, "it is a socket")
    if not stat.S_ISFIFO(mode):  # whose reader may come later
        os.close(_open_special(path))


def _open_special(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _send(descriptor: int, text: bytes) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while text:
        if not poll.poll(_PATIENCE_MS):
            raise OSError(errno.ETIMEDOUT, "nobody reads it")
        text = text[os.write(descriptor, text[: select.PIPE_BUF]) :]


def _open_aside(path: str) -> tuple[int, Path]:
    # A short name, for there may be no room for more than path's own, and one that nobody can be there before.
    aside = Path(path).with_name(f".creditguard-{os.urandom(8).hex()}.tmp")
    return os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), aside


def _replace(path: str, text: bytes) -> None:
    descriptor, aside = _open_aside(path)
    try:
        with os.fdopen(descriptor, "wb", 0) as file:
            _send(file.fileno(), text)
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
