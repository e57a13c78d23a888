"""`creditguard version`."""

from __future__ import annotations

import argparse

from creditguard._version import __version__
from creditguard.cli import exits
from creditguard.cli.output import answer


def run(_: argparse.Namespace) -> int:
    """Print the version."""
    answer(f"creditguard {__version__}")
    return exits.OK
