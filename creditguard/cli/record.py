"""`creditguard record N`: a wrapped command says what it has spent."""

from __future__ import annotations

import argparse

from creditguard.cli import exits
from creditguard.cli.record_file import append


def run(options: argparse.Namespace) -> int:
    """Add to the run's recorded credits."""
    append(f"{options.credits:f}")
    return exits.OK
