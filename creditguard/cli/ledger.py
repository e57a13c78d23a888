"""`creditguard ledger init`: make a shared ledger's tables, by a role that may, before the jobs' own roles use it."""

from __future__ import annotations

import argparse

from creditguard.cli import exits
from creditguard.cli.output import answer
from creditguard.cli.preflight import ledger_for


def run(options: argparse.Namespace) -> int:
    """Create or upgrade the ledger's schema. Harmless to repeat."""
    ledger = ledger_for(options)
    init = getattr(ledger, "init", ledger.holds)  # an embedded ledger makes itself at its first verb
    init()
    answer(f"the {ledger.name} ledger is ready")
    return exits.OK
