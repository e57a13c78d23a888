"""`run --progress`: one line on the terminal, rewritten while the command runs: spent, left, rate, time to empty."""

from __future__ import annotations

import sys

from creditguard.cli.output import printable
from creditguard.guarding.run import Run

EVERY = 1.0
"""Seconds."""


class Progress:
    """The line. Nothing anywhere but on a terminal."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ended = False
        self._shown = False

    @staticmethod
    def possible() -> bool:
        """Whether stderr is a terminal."""
        return sys.stderr is not None and sys.stderr.isatty()

    def show(self) -> float | None:
        """Write the line anew; when to do so again. For the attendant."""
        if self._ended:
            return None
        self._write(line(self._run))
        self._shown = True
        return EVERY

    def end(self) -> None:
        """Take the line away."""
        self._ended = True
        if self._shown:
            self._write("")

    @staticmethod
    def _write(text: str) -> None:
        try:
            sys.stderr.write(f"\r\x1b[K{printable(text)}")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # the terminal has gone


def line(run: Run) -> str:
    """What is known of a run, in a line."""
    spent = run.spending.spent
    parts = [f"{run.job}: {'?' if spent is None else f'{spent:f}'} of {run.budget:f} spent"]
    if run.balance_now is not None:
        parts.append(f"{run.balance_now:f} left")
    if run.burn_rate:
        parts.append(f"{run.burn_rate:g} a minute")
    if run.time_to_empty is not None:
        minutes, seconds = divmod(round(run.time_to_empty), 60)
        parts.append(
            f"empty in {minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"empty in {minutes}m{seconds:02d}s"
        )
    return ", ".join(parts)
