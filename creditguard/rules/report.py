"""The report of a run: all that is known of it when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from creditguard.rules.amounts import EXACT, ZERO, to_json
from creditguard.rules.consumption import overlapping, usage
from creditguard.rules.settling import Ending, Exit
from creditguard.rules.values import Admission, Basis, Label, Outcome, Plan


@dataclass(frozen=True, slots=True)
class Report:
    """What a run consumed, and how sure that is. The same fields, in the same words, as the `creditguard.finished` event.

    Amounts are in `unit`; `duration_s` is in seconds. `None` means that it is not known, never 0.
    """

    run_id: str
    job: str
    account: str
    source: str
    unit: str
    budget: Decimal
    keep: Decimal
    balance_before: Decimal | None
    held_by_others: Decimal | None
    headroom: Decimal | None
    shortfall: Decimal | None
    request_id_before: str | None
    labels: Mapping[str, Label]
    balance_after: Decimal | None
    balance_delta: Decimal | None
    """Before − after: negative when the balance rose."""
    credits_consumed: Decimal | None
    credits_recorded: Decimal | None
    drift: Decimal | None
    """Delta − recorded, where both are known."""
    basis: Basis
    over_budget: bool | None
    settled: bool
    """The last reading holds all debits and refunds of the run, as far as waiting, or the job's own word, can show."""
    overlapping_runs: int | None
    outcome: Outcome
    duration_s: float
    request_id_after: str | None
    lease_lost: bool = False
    pending: int | None = None
    """Tasks that the job said were still open when it ended: they may yet be debited or refunded."""
    consumed_at_least: Decimal | None = None
    """Where `basis` is unknown because the balance rose: what was debited at least, refunds not taken off."""
    stopped: bool = False
    """The guard told the run to stop. `outcome` says how the job took it."""
    hold_left: Decimal | None = None
    """What the run held at its end: its budget less what it recorded, where the hold shrinks; None where nothing was held."""

    def __str__(self) -> str:
        """The report in one sentence."""
        from creditguard.rules.sentences import sentence  # which knows the events, which know the report

        return sentence("creditguard.finished", self.to_dict())

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        from html import escape

        return f"<div>{escape(str(self))}</div>"

    def to_dict(self) -> dict[str, object]:
        """The report as plain JSON values, in the words of the event schema."""
        plain: dict[str, object] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            plain[name] = to_json(value) if type(value) is Decimal else value
        plain["labels"] = dict(self.labels)
        return plain


def make_report(admission: Admission, ending: Ending, found: Exit) -> Report:
    """Put together all that is known of a run."""
    plan, before, after = admission.plan, admission.balance, found.after
    overlaps = overlapping(admission.mark, found.mark)
    used = usage(
        plan.budget,
        before.amount if before else None,
        after.amount if after else None,
        ending.recorded,
        overlaps,
        fallen=found.trend.fallen if found.trend else ZERO,
        rose=found.rose or (found.trend is not None and found.trend.rose and after is None),
    )
    over_budget = used.over_budget
    if used.basis == "account_delta" and found.rose_after and not over_budget:
        over_budget = None
    if over_budget is None and ending.overran:
        over_budget = True
    return Report(
        run_id=plan.run_id,
        job=plan.job,
        account=plan.account,
        source=plan.source,
        unit=plan.unit,
        budget=plan.budget,
        keep=plan.keep,
        balance_before=before.amount if before else None,
        held_by_others=admission.held_by_others,
        headroom=admission.headroom,
        shortfall=admission.shortfall,
        request_id_before=before.request_id if before else None,
        labels=plan.labels,
        balance_after=after.amount if after else None,
        balance_delta=used.delta,
        credits_consumed=used.consumed,
        credits_recorded=ending.recorded,
        drift=used.drift,
        basis=used.basis,
        over_budget=over_budget,
        # A rise after the end is a refund, most likely, and then the figure is right. But a top-up looks the same.
        settled=found.settled and not (found.rose_after and used.basis != "recorded"),
        overlapping_runs=overlaps,
        outcome=ending.outcome,
        duration_s=round(max(ending.ended - admission.started, 0.0), 6),
        request_id_after=after.request_id if after else None,
        lease_lost=ending.lease_lost,
        pending=ending.pending,
        consumed_at_least=used.at_least,
        stopped=ending.stopped,
        hold_left=ending.hold_left,
    )


def refused(admission: Admission, ended: float) -> Report:
    """The report of a run that was not started."""
    return make_report(admission, Ending("refused", None, ended), Exit())


def drift_tolerance(plan: Plan, recorded: Decimal) -> Decimal:
    """How far delta and record may part: what the caller said, else a credit or 1 % of what was recorded."""
    if plan.drift_tolerance is not None:
        return plan.drift_tolerance
    return max(Decimal(1), EXACT.multiply(recorded.copy_abs(), Decimal("0.01")))


def drifted(plan: Plan, report: Report) -> bool:
    """Whether delta and record part by more than the tolerance although no other guarded run was on the account.

    An account that has lost less than was recorded is as a rule only behind, as long as it has not settled.
    """
    if report.drift is None or report.credits_recorded is None or report.overlapping_runs != 0:
        return False
    if report.drift < 0 and not report.settled:
        return False
    return report.drift.copy_abs() > drift_tolerance(plan, report.credits_recorded)


def lags(plan: Plan, report: Report, *, was: bool, rose: bool) -> bool:
    """Whether the account shows debits later than they are recorded, where `was` says that it was known to.

    It does if it has lost less than the job recorded, with no other guarded run on it to explain that, and no rise that a reading
    saw (`rose`). It does no more once a settled report agrees with its record.
    """
    if report.drift is None or report.credits_recorded is None or report.overlapping_runs != 0:
        return was
    if was:
        return not report.settled or report.drift.copy_abs() > drift_tolerance(plan, report.credits_recorded)
    return plan.shrink and report.credits_recorded > 0 and report.drift < 0 and not rose
