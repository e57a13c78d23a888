"""What past runs tell, pure: totals of many, the budget that they suggest for the next one, and what a job usually takes.

A run is given as its report was filed: plain JSON values, in the words of the event schema. Only a figure that is sure counts: one
that the job recorded, or what the account lost while no other guarded run was on it. Bounds and unknown figures are counted, not
summed. A percentile is the least figure that so many percent of the runs did not exceed, so it is always one that some run had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple, TypeAlias

from creditguard.rules.amounts import EXACT, LARGEST, ZERO, rounded, whole

Filed: TypeAlias = Mapping[str, object]
"""A report as a ledger has it."""

ENOUGH = 5
"""Fewer runs than that suggest nothing."""


def number(value: object) -> Decimal | None:
    """An amount of a filed report; None for what is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    amount = Decimal(str(value))
    return rounded(amount) if amount.is_finite() and amount.copy_abs() <= LARGEST else None


def figure(report: Filed) -> Decimal | None:
    """What the run consumed, if that is sure."""
    sure = report.get("basis") in ("recorded", "account_delta")
    return number(report.get("credits_consumed")) if sure else None


def percentile(ordered: Sequence[Decimal], percent: int) -> Decimal:
    """The least of the figures, which are given in rising order, that `percent` of them do not exceed."""
    return ordered[max(-(-len(ordered) * percent // 100), 1) - 1]


class Totals(NamedTuple):
    """Of many runs. Amounts are sums and percentiles of the sure figures; None where there is none."""

    runs: int
    """Those that started."""
    refused: int
    """Those that did not."""
    consumed: Decimal
    over_budget: int
    mean: Decimal | None
    p50: Decimal | None
    p90: Decimal | None
    abandoned: int
    """How many of `runs` died without a report."""
    unsure: int
    """How many of `runs` have no sure figure, so that `consumed` lacks theirs."""


def totals(reports: Iterable[Filed]) -> Totals:
    """The totals of these runs."""
    runs = refused = over_budget = abandoned = 0
    figures = []
    for report in reports:
        outcome, consumed = report.get("outcome"), figure(report)
        if outcome == "refused":
            refused += 1
            continue
        runs += 1
        abandoned += outcome == "abandoned"
        over_budget += report.get("over_budget") is True
        if consumed is not None:
            figures.append(consumed)
    figures.sort()
    consumed = ZERO
    for each in figures:
        consumed = EXACT.add(consumed, each)
    return Totals(
        runs=runs,
        refused=refused,
        consumed=whole(consumed),
        over_budget=over_budget,
        mean=rounded(EXACT.divide(consumed, Decimal(len(figures)))) if figures else None,
        p50=percentile(figures, 50) if figures else None,
        p90=percentile(figures, 90) if figures else None,
        abandoned=abandoned,
        unsure=runs - len(figures),
    )


def grouped(reports: Iterable[Filed], key: Callable[[Filed], str]) -> dict[str, list[Filed]]:
    """The runs by job, by day, or by whatever `key` says, sorted by that."""
    groups: dict[str, list[Filed]] = {}
    for report in reports:
        groups.setdefault(key(report), []).append(report)
    return dict(sorted(groups.items()))


def job_of(report: Filed) -> str:
    """The name of the run's job."""
    return str(report.get("job") or "")


class Suggestion(NamedTuple):
    """The budget that past runs of a job suggest, and why. Without enough of them `budget` and the shares are None."""

    job: str
    runs: int
    """Those with a sure figure, which all else rests on."""
    p50: Decimal | None
    p90: Decimal | None
    p95: Decimal | None
    max: Decimal | None
    budget: Decimal | None
    reason: str
    refused: float | None
    """The share of past runs (those with a sure figure and those refused) that would have been refused with this budget: less
    than that was free when they began."""
    over: float | None
    """The share of them that would have started, and consumed more."""


def suggest(job: str, reports: Iterable[Filed]) -> Suggestion:
    """The budget for the job whose runs these are: what 95 % of them did not exceed, rounded up to two figures."""
    known = [(report, figure(report)) for report in reports]
    figures = sorted(consumed for _, consumed in known if consumed is not None)
    p50, p90, p95 = (percentile(figures, percent) if figures else None for percent in (50, 90, 95))
    most = figures[-1] if figures else None
    if p95 is None or len(figures) < ENOUGH:
        runs = "1 run has" if len(figures) == 1 else f"{len(figures) or 'no'} runs have"
        reason = f"{runs} a sure figure, {ENOUGH} are needed"
        return Suggestion(job, len(figures), p50, p90, p95, most, None, reason, None, None)
    budget = max(_round(p95, p95.adjusted() - 1, ROUND_CEILING), ZERO)
    refused = over = of = 0
    for report, consumed in known:
        if consumed is None and report.get("outcome") != "refused":
            continue
        of += 1
        free = number(report.get("headroom"))
        if free is not None and free < budget:
            refused += 1
        elif consumed is not None and consumed > budget:
            over += 1
    reason = f"95 % of {len(figures)} runs took {p95:f} or less{', rounded up' if budget > p95 else ''}"
    return Suggestion(job, len(figures), p50, p90, p95, most, budget, reason, refused / of, over / of)


def usually(reports: Iterable[Filed]) -> str | None:
    """`usually 60-75, at most 79 in 12 runs`: four of five runs took that much, and none more. None if too few are known."""
    figures = sorted(consumed for consumed in map(figure, reports) if consumed is not None)
    if len(figures) < ENOUGH:
        return None
    low, high, most = percentile(figures, 10), percentile(figures, 90), figures[-1]
    least, up_to = _readable(low, ROUND_FLOOR), _readable(high, ROUND_CEILING)
    span = f"{least:f}" if least == up_to else f"{least:f}-{up_to:f}"
    return f"usually {span}, at most {_readable(most, ROUND_CEILING):f} in {len(figures)} runs"


def _readable(amount: Decimal, rounding: str) -> Decimal:
    """Whole where it is whole, else to three figures."""
    return _round(amount, min(amount.adjusted() - 2, 0), rounding)


def _round(amount: Decimal, exponent: int, rounding: str) -> Decimal:
    unit = Decimal((0, (1,), exponent))
    return whole(EXACT.multiply(EXACT.divide(amount, unit).to_integral_value(rounding, EXACT), unit))
