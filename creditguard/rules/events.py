"""The events that creditguard logs: their names, levels and fields. This is an interface: events.schema.json says the same to programs.

An event never holds a key, a header, a query string or an argument of the job. Amounts are JSON numbers, integers when whole;
what is not known is null.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

from creditguard.errors import BalanceUnavailable, CreditGuardError, LedgerError
from creditguard.rules.amounts import from_micro, to_json
from creditguard.rules.report import Report
from creditguard.rules.values import Admission, LiveHold, Plan, SpentBasis

SCHEMA = 1

ADMITTED = "creditguard.admitted"
SHORT = "creditguard.short"
REFUSED = "creditguard.refused"
WAITING = "creditguard.waiting"
UNREADABLE = "creditguard.unreadable"
LEDGER_UNAVAILABLE = "creditguard.ledger_unavailable"
LEASE_LOST = "creditguard.lease_lost"
THRESHOLD = "creditguard.threshold"
OVERRUN = "creditguard.overrun"
DRIFT = "creditguard.drift"
FINISHED = "creditguard.finished"
EXTENDED = "creditguard.extended"
ABANDONED = "creditguard.abandoned"
LAGGING = "creditguard.lagging"

Level: TypeAlias = Literal["info", "warning", "error"]
Stage: TypeAlias = Literal["before", "after"]
Policy: TypeAlias = Literal["abort", "warn", "passed_over", "none"]
"""What was done about something unreadable: the job was refused, or started all the same; the default ledger was passed over;
or nothing, since the job had already ended."""
Cause: TypeAlias = Literal["budget", "stop_below"]
"""What a run ran over: its own budget, or what was to be left on the account."""


class Event(NamedTuple):
    """One event: its name, its level, and its fields as plain JSON values."""

    name: str
    level: Level
    fields: dict[str, object]


def _run_fields(admission: Admission) -> dict[str, object]:
    plan, balance = admission.plan, admission.balance
    return {
        "schema": SCHEMA,
        "run_id": plan.run_id,
        "job": plan.job,
        "account": plan.account,
        "source": plan.source,
        "unit": plan.unit,
        "budget": to_json(plan.budget),
        "keep": to_json(plan.keep),
        "balance_before": to_json(balance.amount) if balance else None,
        "held_by_others": to_json(admission.held_by_others),
        "headroom": to_json(admission.headroom),
        "shortfall": to_json(admission.shortfall),
        "request_id_before": balance.request_id if balance else None,
        "labels": dict(plan.labels),
    }


def admitted(admission: Admission, *, held: bool) -> Event:
    """The job may start. Nothing is held for a mere question, nor where the ledger is done without."""
    fields = _run_fields(admission)
    return Event(ADMITTED, "info", fields | {"held": fields["budget"] if held else 0})


def short(admission: Admission) -> Event:
    """Short of credits, but the job starts: `on_short="warn"`."""
    return Event(SHORT, "warning", _run_fields(admission) | {"others": admission.others})


def refused(admission: Admission) -> Event:
    """Short of credits: the job does not start."""
    return Event(REFUSED, "error", _run_fields(admission) | {"others": admission.others, "usually": admission.usually})


def waiting(admission: Admission, error: CreditGuardError | None = None) -> Event:
    """Short of credits for now, or not answered: not started yet, to be asked again."""
    fields = _run_fields(admission)
    return Event(WAITING, "info", fields | {"others": admission.others, "reason": str(error) if error else None})


def as_waiting(refusal: Event) -> Event:
    """The event of a refusal that is not the last word: somebody else waits, and asks again."""
    return Event(WAITING, "info", {**refusal.fields, "reason": None})


def extended(admission: Admission, by: Decimal) -> Event:
    """The run was admitted for more."""
    return Event(EXTENDED, "info", _run_fields(admission) | {"extended_by": to_json(by)})


def lagging(admission: Admission, lost: Decimal | None, recorded: Decimal | None, *, lagging: bool) -> Event:
    """The account shows debits late, or has been seen to agree again."""
    said = f"it lost {to_json(lost)}, and {to_json(recorded)} were recorded"
    fields = _run_fields(admission) | {"lagging": lagging, "reason": said}
    return Event(LAGGING, "warning" if lagging else "info", fields)


def _failure(error: CreditGuardError, policy: Policy, stage: Stage) -> dict[str, object]:
    return {"stage": stage, "policy": policy, "error": type(error).__name__, "reason": str(error)}


def unreadable(admission: Admission, error: BalanceUnavailable, policy: Policy, stage: Stage) -> Event:
    """The balance could not be read, before or after the job."""
    fields = _run_fields(admission) | _failure(error, policy, stage)
    fields |= {"status": error.status, "retry_after": error.retry_after, "request_id": error.request_id}
    return Event(UNREADABLE, "error" if policy == "abort" else "warning", fields)


def ledger_unavailable(admission: Admission, error: LedgerError, policy: Policy, stage: Stage) -> Event:
    """The ledger could not be used, before or after the job."""
    fields = _run_fields(admission) | _failure(error, policy, stage) | {"ledger": error.ledger}
    return Event(LEDGER_UNAVAILABLE, "error" if policy == "abort" else "warning", fields)


def abandoned(live: LiveHold, plan: Plan) -> Event:
    """The process of another run died, and its hold was freed by the run of this plan: its report is missing."""
    hold = live.hold
    fields: dict[str, object] = {
        "schema": SCHEMA,
        "run_id": hold.id,
        "job": hold.job,
        "account": hold.account,
        "source": plan.source,
        "unit": plan.unit,
        "budget": None if live.budget is None else to_json(from_micro(live.budget)),
        "held": to_json(from_micro(hold.amount)),
        "balance_before": None if hold.balance is None else to_json(from_micro(hold.balance)),
        "since": live.since.isoformat(timespec="seconds"),
        "host": live.owner.host,
        "pid": live.owner.pid,
        "labels": dict(hold.labels),
    }
    return Event(ABANDONED, "warning", fields)


def lease_lost(admission: Admission, error: LedgerError) -> Event:
    """The hold lapsed while the job ran: others may have been admitted against the same credits."""
    fields = _run_fields(admission) | {"reason": str(error), "ledger": error.ledger}
    return Event(LEASE_LOST, "error", fields)


class SpentNow(NamedTuple):
    """What the watch knows of a run at one time: the fields that its events share."""

    spent: Decimal | None
    spent_basis: SpentBasis
    remaining: Decimal | None
    """Budget − spent."""
    balance_now: Decimal | None
    burn_rate: float | None
    """Credits that the account loses per minute."""
    time_to_empty: float | None
    """Seconds until nothing is left on the account at this rate."""

    def fields(self) -> dict[str, object]:
        """As plain JSON values."""
        return {
            "spent": to_json(self.spent),
            "spent_basis": self.spent_basis,
            "remaining": to_json(self.remaining),
            "balance_now": to_json(self.balance_now),
            "burn_rate": self.burn_rate,
            "time_to_empty_s": self.time_to_empty,
        }


def threshold(admission: Admission, share: Decimal, now: SpentNow) -> Event:
    """The run has spent that share of its budget."""
    fields = _run_fields(admission) | {"threshold": to_json(share)} | now.fields()
    return Event(THRESHOLD, "warning", fields)


def overrun(admission: Admission, cause: Cause, now: SpentNow, *, stopping: bool) -> Event:
    """The run has spent more than its budget (as sure as `spent_basis` says), or the account is below `stop_below`."""
    more = {"cause": cause, "stop_below": to_json(admission.plan.stop_below), "stopping": stopping}
    return Event(OVERRUN, "warning", _run_fields(admission) | more | now.fields())


def drift(admission: Admission, report: Report) -> Event:
    """Account and job disagree about what was spent, and no other guarded run was there to explain it."""
    assert report.drift is not None  # noqa: S101 - or there is nothing to say
    if report.drift > 0:
        reason = (
            "the account lost more than the job recorded: somebody else spends from it, or the job does not record all"
        )
    else:
        reason = (
            "the account lost less than the job recorded: its balance lags, tasks were refunded, or it was topped up"
        )
    fields = _run_fields(admission) | {
        "balance_after": to_json(report.balance_after),
        "balance_delta": to_json(report.balance_delta),
        "credits_recorded": to_json(report.credits_recorded),
        "drift": to_json(report.drift),
        "settled": report.settled,
        "pending": report.pending,
        "reason": reason if report.settled else f"{reason}; the balance had not settled",
    }
    return Event(DRIFT, "warning", fields)


def finished(report: Report) -> Event:
    """The run is over. A warning when it went over its budget, or when what it consumed could not be read."""
    unread = report.balance_before is None or report.balance_after is None
    return Event(
        FINISHED, "warning" if report.over_budget or unread else "info", {"schema": SCHEMA, **report.to_dict()}
    )
