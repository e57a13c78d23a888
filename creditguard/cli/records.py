"""What a wrapped command says that it spent: a file of one amount a line, named in CREDITGUARD_RECORD_FILE."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from creditguard.errors import ConfigurationError
from creditguard.guarding.run import Run

VARIABLE = "CREDITGUARD_RECORD_FILE"


class RecordFile:
    """The file of one run. Read now and then while the command runs, and once more when it has ended."""

    def __init__(self) -> None:
        self._read = 0
        self.odd: list[str] = []
        """The lines that are no amounts."""
        try:
            handle, name = tempfile.mkstemp(prefix="creditguard-", suffix=".record")
        except OSError:
            self.path: Path | None = None  # no place for one: then nothing is recorded
            return
        os.close(handle)
        self.path = Path(name)

    def collect(self, run: Run) -> None:
        """Add what was recorded since the last time. A line that is still being written waits for the next."""
        if self.path is None:
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            self.odd.append("the file is gone")
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in filter(None, map(str.strip, whole.decode("utf-8", "replace").splitlines())):
            try:
                run.record(line)
            except ConfigurationError:
                self.odd.append(line[:40])

    def finish(self, run: Run) -> None:
        """Add the rest, a last line without an end included, and remove the file."""
        if self.path is None:
            return
        try:
            with self.path.open("ab") as file:
                file.write(b"\n")
        except OSError:
            pass  # gone: collect says so
        self.collect(run)
        self.path.unlink(missing_ok=True)
