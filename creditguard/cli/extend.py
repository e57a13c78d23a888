"""`creditguard extend N`: a wrapped command asks for more, by the rules of admission."""

from __future__ import annotations

import argparse
import os

from creditguard.cli import exits
from creditguard.cli.output import answer
from creditguard.cli.preflight import Events
from creditguard.cli.record_file import VARIABLE, append, extended_so_far
from creditguard.errors import ConfigurationError
from creditguard.guarding.guard import extend_run
from creditguard.rules.amounts import EXACT, to_credits

RUN_ID = "CREDITGUARD_RUN_ID"
BUDGET = "CREDITGUARD_BUDGET"
JOB = "CREDITGUARD_JOB"


def run(options: argparse.Namespace) -> int:
    """Grow the hold of the run that this command runs in, and tell `run` of it. 75 when that does not fit: nothing has changed."""
    run_id, budget = os.environ.get(RUN_ID), os.environ.get(BUDGET)
    if not run_id or not budget:
        raise ConfigurationError(f"{RUN_ID} is not set: extend works inside of creditguard run -- CMD", RUN_ID)
    job = os.environ.get(JOB) or "extend"
    grown = EXACT.add(to_credits(budget, BUDGET), extended_so_far(os.environ.get(VARIABLE) or ""))
    extend_run(run_id, job, options.credits, grown, sink=Events(options))
    append(f"extend {options.credits:f}")
    answer(f"{options.credits:f} more")
    return exits.OK
