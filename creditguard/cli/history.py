"""`creditguard history`: what past runs consumed, which were refused or abandoned, and their totals by job or by day."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from creditguard.cli import exits, table
from creditguard.cli.output import say
from creditguard.cli.preflight import ledger_for
from creditguard.rules.amounts import EXACT, whole
from creditguard.rules.history import Filed, Totals, grouped, job_of, number, readable, totals
from creditguard.rules.report import Report

_USUAL = 20
_ALL = 10**9


def run(options: argparse.Namespace) -> int:
    """List the latest runs, newest first, or the totals of all; all of them as CSV oldest first, as the ledger can be read bit by bit."""
    ledger = ledger_for(options)
    limit = options.limit or (_ALL if options.since or options.by else _USUAL)
    if (options.by or options.csv) and limit == _ALL:
        reports: Iterable[Filed] = ledger.runs(since=options.since, job=options.job, account=options.account)
    else:
        reports = ledger.history(since=options.since, job=options.job, account=options.account, limit=limit)
    if options.by:
        groups = grouped(reports, day_of if options.by == "day" else job_of)
        _answer_totals(options, {key: totals(runs) for key, runs in groups.items()})
    elif options.json or options.csv:
        table.answer_records(options, ("finished_at", *Report.__slots__), reports)
    else:
        _show_runs(options, list(reports))
    return exits.OK


def when(report: Filed) -> datetime:
    """When the run ended, or was refused or found abandoned, on the clock of this machine."""
    return datetime.fromisoformat(str(report["finished_at"]).replace("Z", "+00:00")).astimezone()


def day_of(report: Filed) -> str:
    """The day of that: a key for `grouped`."""
    return f"{when(report):%Y-%m-%d}"


def say_that_there_is_none(options: argparse.Namespace) -> None:
    """In words that fit what was asked for."""
    of = "" if options.job is None else f" of {options.job}"
    since = "yet" if options.since is None else f"since {options.since.astimezone():%Y-%m-%d %H:%M}"
    say(f"no run{of} has ended {since}")


_RUNS = ("FINISHED", "JOB", "OUTCOME", "BUDGET", "CONSUMED", "OVER", "BASIS", "LEFT", "SECONDS", "RUN")


def _show_runs(options: argparse.Namespace, reports: list[Filed]) -> None:
    if not reports:
        say_that_there_is_none(options)
        return
    spare = ("RUN", "SECONDS", "LEFT", "BUDGET", "OUTCOME", "BASIS", "FINISHED")
    marks = {at: mark for at, report in enumerate(reports) if (mark := _mark(report))}
    table.show(_RUNS, [_as_row(report) for report in reports], spare=spare, marks=marks)


def _mark(report: Filed) -> table.Mark | None:
    if report.get("over_budget") is True:
        return "red"
    return None if report.get("outcome") == "succeeded" else "yellow"


def _as_row(report: Filed) -> tuple[object, ...]:
    seconds = report.get("duration_s")
    return (
        f"{when(report):%Y-%m-%d %H:%M}",
        *(report.get(word) for word in ("job", "outcome", "budget", "credits_consumed")),
        _over(report),
        report.get("basis"),
        report.get("balance_after"),
        f"{seconds:.1f}" if isinstance(seconds, (int, float)) else None,
        report.get("run_id"),
    )


def _over(report: Filed) -> object:
    """By how much it went over its budget; `yes` where only that is known."""
    if report.get("over_budget") is not True:
        return None
    consumed, budget = number(report.get("credits_consumed")), number(report.get("budget"))
    if consumed is None or budget is None or consumed <= budget:
        return "yes"
    return f"{whole(EXACT.subtract(consumed, budget)):f}"


def _answer_totals(options: argparse.Namespace, groups: dict[str, Totals]) -> None:
    if options.by == "job":  # where most credits went comes first
        groups = dict(sorted(groups.items(), key=lambda group: -group[1].consumed))
    if options.json or options.csv:
        records = [{options.by: key, **table.as_record(each)} for key, each in groups.items()]
        table.answer_records(options, (options.by, *Totals._fields), records)
    elif groups:
        spare = ("ABANDONED", "MEAN", "UNSURE", "P90", "REFUSED", "P50", "RUNS")
        marks: dict[int, table.Mark] = {at: "yellow" for at, each in enumerate(groups.values()) if each.over_budget}
        rows = [(key, *_as_totals(each)) for key, each in groups.items()]
        table.show([name.upper() for name in (options.by, *Totals._fields)], rows, spare=spare, marks=marks)
    else:
        say_that_there_is_none(options)


def _as_totals(each: Totals) -> tuple[object, ...]:
    shown = each._replace(mean=each.mean and readable(each.mean))
    return tuple(f"{value:f}" if isinstance(value, Decimal) else value for value in shown)
