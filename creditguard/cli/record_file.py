"""What a wrapped command says that it spent: a file of one amount a line, named in CREDITGUARD_RECORD_FILE, and `extend N` in a
line for what its budget has grown by. `record` and `extend` append to it, and `run` reads it.

The command may do with the file what it likes: remove it, fill it, put something else in its place. None of that may end its
run in another way, or keep it waiting: so only a regular file is read, without following links, and only so much of it.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from creditguard.errors import ConfigurationError
from creditguard.rules.amounts import EXACT, ZERO, to_credits

if TYPE_CHECKING:
    from creditguard.guarding.run import Run

VARIABLE = "CREDITGUARD_RECORD_FILE"

_MOST = 32 << 20
"""Bytes that are read of a file: millions of lines."""
_CHUNK = 1 << 16
_LONGEST = 100
"""Bytes of a line; an amount has fewer."""
_TROUBLES = 5
"""Messages about one file."""
_EXTEND = "extend "


def append(line: str) -> None:
    """Append a line to the run's file. A short one is appended in one piece, so parallel children may do it at once."""
    path = os.environ.get(VARIABLE)
    if not path:
        message = f"{VARIABLE} is not set: record works inside of creditguard run -- CMD"
        raise ConfigurationError(message, VARIABLE)
    try:
        with _opened(path, os.O_WRONLY | os.O_APPEND) as file:
            if file is None:
                raise ConfigurationError(f"{VARIABLE}: {path} is no longer a file", VARIABLE)
            text = f"{line}\n".encode()
            written = os.write(file, text)
            if written < len(text):  # a full disk, and half of an amount is another amount
                os.ftruncate(file, os.lseek(file, 0, os.SEEK_CUR) - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise ConfigurationError(f"{VARIABLE}: {path} cannot be written: {error.strerror}", VARIABLE) from None


def extended_so_far(path: str) -> Decimal:
    """By how much the budget of the run whose file this is has grown; as far as it can be read."""
    total = ZERO
    with suppress(OSError), _opened(path, os.O_RDONLY) as file:
        lines = [] if file is None else os.read(file, _MOST).splitlines()
        for line in lines:
            if line.startswith(_EXTEND.encode()):
                with suppress(ConfigurationError):
                    total = EXACT.add(total, _amount(line)[1])
    return total


@contextmanager
def _opened(path: str | Path, how: int) -> Iterator[int | None]:
    """A descriptor of the file; None if something else is in its place."""
    file = os.open(path, how | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        yield file if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)


def _amount(line: bytes) -> tuple[bool, Decimal]:
    """Whether the line is of `extend`, and its amount. Raises ConfigurationError if it has none."""
    text = line[:_LONGEST].decode("utf-8", "replace").strip()
    extends = text.startswith(_EXTEND)
    return extends, to_credits(text.removeprefix(_EXTEND), VARIABLE, negative=not extends)


class RecordFile:
    """The file of one run. Read now and then while the command runs, and once more when it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read = 0
        self._rest = b""
        self.troubles: list[str] = []
        """What was wrong with it, each in a few words."""
        self.path: Path | None = None
        """None until it is made and once it is finished, and where there is no place for one: then nothing is recorded."""
        self.name: Path | None = None
        with suppress(OSError):
            self.name = Path(tempfile.gettempdir(), f"creditguard-{os.urandom(8).hex()}.record")

    def make(self) -> None:
        """Make the file, once its name is known to whoever removes it should we be killed."""
        if self.name:
            with suppress(OSError):
                os.close(os.open(self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
                self.path = self.name

    def collect(self, run: Run) -> bool:
        """Add what was recorded since the last time; whether there may be more. A line that is still being written waits for that."""
        with self._lock:
            self._read_on(run)
            return self.name is not None

    def finish(self, run: Run) -> None:
        """Add the rest, a last line without an end included, and remove the file."""
        with self._lock:
            self._read_on(run, last=True)
            path, self.path, self.name = self.path, None, None
        with suppress(OSError):  # a directory by now, or out of reach: the command's business
            if path:
                path.unlink(missing_ok=True)

    def _read_on(self, run: Run, *, last: bool = False) -> None:
        try:
            if self.path:
                self._read_all(run, self.path)
            if last:
                self._record(run, [self._rest])
        except Exception as error:  # the command has ended in its own way, whatever is the matter here
            reason = (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"
            self._trouble(f"it cannot be read: {reason}")

    def _read_all(self, run: Run, path: Path) -> None:
        with _opened(path, os.O_RDONLY) as file:
            if file is None:
                self._trouble("it is no longer a file")
                return
            while chunk := os.pread(file, _CHUNK, self._read):
                if self._read >= _MOST:
                    self._trouble(f"it is too long: only its first {_MOST >> 20} MiB count")
                    return
                self._read += len(chunk)
                *lines, rest = (self._rest + chunk).split(b"\n")
                self._rest = rest[:_LONGEST]
                self._record(run, lines)

    def _record(self, run: Run, lines: list[bytes]) -> None:
        total: Decimal | None = None
        for line, times in Counter(lines).items():
            if not line.strip():
                continue
            try:
                extends, amount = _amount(line)
            except ConfigurationError:
                self._trouble(f"not an amount of credits: {line.strip()[:40].decode('utf-8', 'replace')}")
                continue
            amount = EXACT.multiply(amount, Decimal(times))
            if extends:
                run._life.extended_elsewhere(amount)
            else:
                total = EXACT.add(total or ZERO, amount)
        if total is not None:
            run.record(total)

    def _trouble(self, words: str) -> None:
        if words not in self.troubles and len(self.troubles) <= _TROUBLES:
            self.troubles.append(words if len(self.troubles) < _TROUBLES else "and more of the kind")
