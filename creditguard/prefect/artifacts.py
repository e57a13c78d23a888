"""What a guard leaves in Prefect's UI: a page for each report and for each answer of a gate, and a bar for a run that is watched.

A page begins with one sentence and five figures; all fields follow.
"""

from __future__ import annotations

import _thread
import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from decimal import Decimal
from functools import partial
from typing import Any

from creditguard.engine.engine import engine
from creditguard.engine.waiting import Ticket, shielded
from creditguard.errors import CreditGuardError, InsufficientCredits, shortage
from creditguard.rules import events
from creditguard.rules.amounts import to_json
from creditguard.rules.report import Report
from creditguard.rules.sentences import amount, duration, sentence
from creditguard.rules.spending import Spending
from creditguard.rules.values import Admission

_log = logging.getLogger("creditguard")

PATIENCE = 10.0
"""Seconds for which a task waits for its artifact at most: Prefect's server may be slow, or gone."""
_MOMENT = 1.0


def report_page(report: Report, refusal: CreditGuardError | None) -> Any:
    """The page of a run that has ended, or was refused."""
    fields: dict[str, Any] = report.to_dict()
    if refusal:
        return _page("credit-report", report.job, _refused(fields, refusal), _question(fields), fields)
    figures = {
        "consumed": amount(fields["credits_consumed"]),
        "budget": amount(fields["budget"]),
        "before": amount(fields["balance_before"]),
        "after": amount(fields["balance_after"]),
        "took": duration(report.duration_s),
    }
    return _page("credit-report", report.job, sentence(events.FINISHED, fields), figures, fields)


def answer_page(admission: Admission) -> Any:
    """The page of a gate's answer."""
    plan, fields = admission.plan, events.admitted(admission, held=False).fields
    if admission.refusal:
        said = _refused(fields, admission.refusal)
    elif admission.balance is None or admission.headroom is None:
        said = f"{plan.job}: may start, how much there is could not be read"
    elif admission.shortfall:
        said = sentence(events.SHORT, fields)
    else:
        there = admission.balance.amount, admission.held_by_others, plan.keep
        said = f"{plan.job}: may start, {shortage(plan.budget, admission.headroom, plan.unit, *there, others=admission.others)}"
    return _page("credit-gate", plan.job, said, _question(fields), fields)


def _refused(fields: Mapping[str, Any], refusal: CreditGuardError) -> str:
    if isinstance(refusal, InsufficientCredits):
        return sentence(events.REFUSED, fields)
    return f"{fields['job']}: refused, {refusal}"


def _question(fields: Mapping[str, Any]) -> dict[str, str]:
    shown = {
        "needs": "budget",
        "free": "headroom",
        "short by": "shortfall",
        "on the account": "balance_before",
        "held by others": "held_by_others",
    }
    return {title: amount(fields[name]) for title, name in shown.items()}


def _page(kind: str, job: str, said: str, figures: Mapping[str, str], fields: Mapping[str, Any]) -> Any:
    from prefect.artifacts import MarkdownArtifact

    rows = {name: value for name, value in fields.items() if name != "labels"}
    rows |= {f"labels.{name}": value for name, value in fields["labels"].items()}
    text = "\n".join(
        [
            _plain(said),
            "",
            *_table(tuple(figures), tuple(figures.values())),
            "",
            *_table(("field", "value"), *((name, json.dumps(value)) for name, value in rows.items())),
        ]
    )
    return MarkdownArtifact(key=_key(kind, job), markdown=text, description=said)


def _table(head: tuple[str, ...], *rows: tuple[str, ...]) -> list[str]:
    return [f"| {' | '.join(map(_plain, row))} |" for row in (head, ("---",) * len(head), *rows)]


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, in one line."""
    return re.sub(r"([\\|*_<>\[\]#])", r"\\\1", " ".join(text.split()))


def _key(kind: str, job: str) -> str:
    """The kind and the job's name, in the letters that Prefect allows in keys: a job's artifacts of a kind are one series."""
    slug = re.sub(r"[^a-z0-9]+", "-", job.lower()).strip("-")
    return f"{kind}-{slug}".rstrip("-")


def in_a_thread(job: str, work: Callable[[], object]) -> Ticket[None]:
    """Write an artifact of the job in a thread of its own: who waits for it does so for as long as they like, and the signal or the
    cancellation that comes meanwhile is theirs alone. What goes wrong is logged, and never reaches the job."""
    ticket: Ticket[None] = Ticket()
    # Prefect's time limits raise an exception in the thread of a task; one that it starts itself would get it in its place (CPython
    # knows a new thread by the one that starts it until it runs). So one of the engine's does.
    start = partial(_start, copy_context(), job, work, ticket)
    try:
        engine().start()
        engine().service.put(start)
    except RuntimeError as error:
        _lacks_thread(job, ticket, error)
    return ticket


def _start(context: Context, job: str, work: Callable[[], object], ticket: Ticket[None]) -> None:
    def do() -> None:
        try:
            work()
        except Exception:
            _log.warning("no artifact of %s", job, exc_info=True)
        finally:
            ticket.finish()

    try:
        _thread.start_new_thread(context.run, (do,))
    except RuntimeError as error:
        _lacks_thread(job, ticket, error)


def _lacks_thread(job: str, ticket: Ticket[None], error: RuntimeError) -> None:
    _log.warning("no artifact of %s: %s", job, error)
    ticket.finish()


def wait(ticket: Ticket[None]) -> None:
    """Wait until it is done, or `PATIENCE` is over; a caller that is interrupted waits for a moment more."""
    try:
        ticket.wait(PATIENCE)
    except BaseException:
        ticket.wait(_MOMENT)
        raise


async def await_(ticket: Ticket[None]) -> None:
    """As `wait`, without blocking the event loop; in a task that is being cancelled, too."""
    try:
        with shielded():
            await ticket.await_(PATIENCE)
    except asyncio.CancelledError:
        with shielded():
            await ticket.await_(_MOMENT)
        raise


class Bar:
    """How much of its budget a watched run has spent, as a progress artifact."""

    def __init__(self, job: str, budget: Decimal, unit: str) -> None:
        self._job = job
        self._budget = budget
        self._unit = unit
        self._turn = _thread.allocate_lock()
        self._id: Any = None
        self._shown: Spending | None = None
        self._is_done = False

    def show(self, spending: Spending, *, last: bool = False) -> None:
        """Bring the artifact up to date; nothing after the `last` time, nor while another thread is at it."""
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if not self._turn.acquire(blocking=last):
            return
        try:
            if self._is_done:
                return
            self._is_done = last
            if spending == self._shown:
                return
            self._shown = spending
            if self._id:
                update_progress_artifact(self._id, **self._content(spending), _sync=True)
            else:
                key = _key("credit-progress", self._job)
                self._id = create_progress_artifact(key=key, **self._content(spending), _sync=True)
        finally:
            self._turn.release()

    def _content(self, spending: Spending) -> dict[str, Any]:
        share = 100 * float(spending.spent or 0) / float(self._budget) if self._budget else 0.0
        spent = f"{amount(to_json(spending.spent))} of {amount(to_json(self._budget))} {self._unit} spent ({spending.basis})"
        return {"progress": min(max(share, 0.0), 100.0), "description": f"{self._job}: {spent}"}
