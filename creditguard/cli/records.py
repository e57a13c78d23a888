"""What a wrapped command says that it spent: a file of one amount a line, named in CREDITGUARD_RECORD_FILE.

The command may do with the file what it likes: remove it, fill it, put something else in its place. None of that may end its
run in another way, or keep it waiting: so only a regular file is read, without following links, and only so much of it.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path

from creditguard.errors import ConfigurationError
from creditguard.guarding.run import Run
from creditguard.rules.amounts import EXACT, ZERO, to_credits

VARIABLE = "CREDITGUARD_RECORD_FILE"

_MOST = 32 << 20
"""Bytes that are read of a file: millions of lines."""
_CHUNK = 1 << 16
_LONGEST = 100
"""Bytes of a line; an amount has fewer."""
_TROUBLES = 5
"""Messages about one file."""


class RecordFile:
    """The file of one run. Read now and then while the command runs, and once more when it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read = 0
        self._rest = b""
        self.troubles: list[str] = []
        """What was wrong with it, each in a few words."""
        try:
            handle, name = tempfile.mkstemp(prefix="creditguard-", suffix=".record")
        except OSError:
            self.path: Path | None = None  # no place for one: then nothing is recorded
            return
        os.close(handle)
        self.path = Path(name)

    def collect(self, run: Run, *, last: bool = False) -> None:
        """Add what was recorded since the last time. A line that is still being written waits for the next, or the `last`."""
        if self.path is None:
            return
        with self._lock:
            try:
                self._read_on(run, self.path)
                if last:
                    self._record(run, [self._rest])
            except Exception as error:  # the command has ended in its own way, whatever is the matter here
                reason = (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"
                self._trouble(f"it cannot be read: {reason}")

    def finish(self, run: Run) -> None:
        """Add the rest, a last line without an end included, and remove the file."""
        self.collect(run, last=True)
        try:
            if self.path:
                self.path.unlink(missing_ok=True)
        except OSError:
            pass  # a directory by now, or out of reach: the command's business

    def _read_on(self, run: Run, path: Path) -> None:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
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
        finally:
            os.close(file)

    def _record(self, run: Run, lines: list[bytes]) -> None:
        total: Decimal | None = None
        for line, times in Counter(lines).items():
            text = line[:_LONGEST].decode("utf-8", "replace").strip()
            if not text:
                continue
            more = text.startswith("extend ")
            text = text.removeprefix("extend ")
            try:
                amount = EXACT.multiply(to_credits(text, VARIABLE, negative=not more), Decimal(times))
            except ConfigurationError:
                self._trouble(f"not an amount of credits: {text[:40]}")
                continue
            if more:
                run._life.extended_elsewhere(amount)
            else:
                total = EXACT.add(total or ZERO, amount)
        if total is not None:
            run.record(total)

    def _trouble(self, words: str) -> None:
        if words not in self.troubles and len(self.troubles) <= _TROUBLES:
            self.troubles.append(words if len(self.troubles) < _TROUBLES else "and more of the kind")
