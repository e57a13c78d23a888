"""`creditguard history`: what the latest runs consumed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import datetime

from creditguard.cli import exits
from creditguard.cli.output import answer, say
from creditguard.cli.preflight import ledger_for
from creditguard.cli.table import render


def run(options: argparse.Namespace) -> int:
    """List the latest reports, newest first."""
    reports = ledger_for(options).history(account=options.account, job=options.name, limit=options.limit)
    if options.json:
        answer(json.dumps([dict(report) for report in reports]))
    elif reports:
        header = ("FINISHED", "JOB", "OUTCOME", "BUDGET", "CONSUMED", "BASIS", "LEFT", "SECONDS", "RUN")
        answer(render(header, [_as_row(report) for report in reports]))
    else:
        say("no run has ended yet" if options.name is None else f"no run of {options.name} has ended yet")
    return exits.OK


def _as_row(report: Mapping[str, object]) -> tuple[object, ...]:
    finished = datetime.fromisoformat(str(report["finished_at"]).replace("Z", "+00:00")).astimezone()
    words = ("job", "outcome", "budget", "credits_consumed", "basis", "balance_after")
    seconds = report.get("duration_s")
    return (
        f"{finished:%Y-%m-%d %H:%M:%S}",
        *(report.get(word) for word in words),
        f"{seconds:.1f}" if isinstance(seconds, (int, float)) else None,
        report.get("run_id"),
    )
