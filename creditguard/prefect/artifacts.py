"""The report of a run as a table artifact of the flow run or task run that it ran in."""

from __future__ import annotations

import logging
import re
from typing import Any

from creditguard.rules.report import Report

_log = logging.getLogger("creditguard")


def publish(report: Report) -> None:
    """Create the artifact. What goes wrong is logged, and never reaches the job."""
    try:
        # `_sync` also in an async flow: whoever writes `with` there, and not `async with`, has chosen to wait.
        _artifact(report).create(_sync=True)
    except Exception:
        _log.warning("no artifact for the report of run %s", report.run_id, exc_info=True)


async def apublish(report: Report) -> None:
    """As `publish`, without blocking the event loop; in a task that is being cancelled, too, but then not for ever."""
    import anyio

    try:
        with anyio.move_on_after(10, shield=True):
            await _artifact(report).acreate()
    except Exception:
        _log.warning("no artifact for the report of run %s", report.run_id, exc_info=True)


def _artifact(report: Report) -> Any:
    from prefect.artifacts import TableArtifact

    return TableArtifact(key=artifact_key(report.job), table=_rows(report), description=_summary(report))


def artifact_key(job: str) -> str:
    """`credit-report-` and the job's name, in the letters that Prefect allows in keys: a job's reports are one series."""
    slug = re.sub(r"[^a-z0-9]+", "-", job.lower()).strip("-")
    return f"credit-report-{slug}".rstrip("-")


def _rows(report: Report) -> list[dict[str, object]]:
    fields = report.to_dict()
    fields.pop("labels")
    fields |= {f"labels.{name}": value for name, value in report.labels.items()}
    return [{"field": name, "value": value} for name, value in fields.items()]


def _summary(report: Report) -> str:
    if report.outcome == "refused":
        if report.shortfall:
            return f"{report.job} was not started: short by {report.shortfall:f} {report.unit}"
        return f"{report.job} was not started: balance or ledger unavailable"
    used = "unknown" if report.credits_consumed is None else f"{report.credits_consumed:f} {report.unit}"
    return f"{report.job} {report.outcome}: consumed {used} ({report.basis}) of a budget of {report.budget:f}"
