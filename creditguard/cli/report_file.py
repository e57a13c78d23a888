"""`--report-file`: the report of a run as JSON, for whatever comes after the job. Always whole: written aside, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from creditguard.errors import ConfigurationError, CreditGuardError
from creditguard.rules.report import Report

Stage = Literal["preflight", "command"]


class ReportFile:
    """Where the report goes; nowhere, if no path was given."""

    def __init__(self, path: str | None) -> None:
        """Raises ConfigurationError if the file could not be written later: better before the job than after it."""
        self._path = Path(path) if path else None
        if self._path is None:
            return
        folder = self._path.parent
        if self._path.is_dir():
            raise ConfigurationError(f"--report-file: {path} is a directory", "--report-file")
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"--report-file: {folder} is not a directory that can be written to", "--report-file"
            )

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
        content |= report.to_dict() if report else {}
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            aside.replace(self._path)
        except OSError as failure:
            aside.unlink(missing_ok=True)
            return f"--report-file: {self._path} cannot be written: {failure.strerror}"
        return None
