"""`creditguard suggest`: the budget that each job should declare, from what its past runs consumed."""

from __future__ import annotations

import argparse
import json
import re
from decimal import Decimal

from creditguard.cli import exits, table
from creditguard.cli.history import say_that_there_is_none
from creditguard.cli.output import answer
from creditguard.cli.preflight import ledger_for
from creditguard.rules.history import Suggestion, grouped, job_of, suggest
from creditguard.rules.text import printable

_FIELDS = ("job", "runs", "p50", "p90", "p95", "max", "budget", "refused", "over")


def run(options: argparse.Namespace) -> int:
    """Suggest a budget for each job, or say why there is none to suggest."""
    reports = ledger_for(options).runs(since=options.since, job=options.job, account=options.account)
    found = [suggest(job, runs) for job, runs in grouped(reports, job_of).items() if job]
    if options.json:
        answer(json.dumps([table.as_record(each) for each in found]))
    elif found:
        rows = [[_cell(getattr(each, field)) for field in _FIELDS] for each in found]
        table.show([field.upper() for field in _FIELDS], rows, spare=("P50", "P90", "MAX", "P95", "RUNS"))
        answer("\n".join(["", *map(_to_paste, found)]))
    else:
        say_that_there_is_none(options)
    return exits.OK


def _cell(value: object) -> object:
    """Shares are percentages."""
    if isinstance(value, float):
        return f"{value:.1%}".replace(".0%", "%")
    return f"{value:f}" if isinstance(value, Decimal) else value


def _to_paste(each: Suggestion) -> str:
    """Lines for a settings file; a comment where nothing is suggested."""
    if each.budget is None:
        return f"# {printable(each.job)}: {each.reason}"
    return f"[jobs.{_key(each.job)}]\nbudget = {each.budget:f}  # {each.reason}"


def _key(job: str) -> str:
    """The name as TOML has it: bare, or quoted and with what is not to be seen escaped."""
    if re.fullmatch(r"[\w-]+", job, re.ASCII):
        return job
    escaped = (each if each.isprintable() and each not in '"\\' else f"\\U{ord(each):08x}" for each in job)
    return f'"{"".join(escaped)}"'
