"""What past runs tell, pure: totals of many, the budget that they suggest for the next one, and what a job usually takes.

A run is given as its report was filed: plain JSON values, in the words of the event schema. Only a figure that is sure counts: one
that the job recorded, or what the account lost while no other guarded run was on it. Bounds and unknown figures are counted, not
summed. A percentile is the least figure that so many percent of the runs did not exceed, so it is always one that some run had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import NamedTuple, TypeAlias

from creditguard.rules.amounts import EXACT, LARGEST, ZERO, rounded, whole

Filed: TypeAlias = Mapping[str, object]
"""A report as a ledger has it."""

ENOUGH = 5
"""Fewer runs than that suggest nothing."""


class PastRun(NamedTuple):
    """Of a run, what the statistics need."""

    job: str
    outcome: str
    consumed: Decimal | None
    """What it consumed, if that is sure."""
    free: Decimal | None
    """The headroom that it found."""
    over_budget: bool


def past(report: Filed) -> PastRun:
    """The run whose report this is. What a damaged ledger made of a field counts as not known."""
    sure = report.get("basis") in ("recorded", "account_delta")
    return PastRun(
        job=job_of(report),
        outcome=str(report.get("outcome") or ""),
        consumed=number(report.get("credits_consumed")) if sure else None,
        free=number(report.get("headroom")),
        over_budget=report.get("over_budget") is True,
    )


def number(value: object) -> Decimal | None:
    """An amount of a filed report; None for what is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    amount = Decimal(str(value))
    if not amount.is_finite() or amount.copy_abs() > LARGEST:
        return None
    nearest = rounded(amount)
    return amount if amount == nearest else nearest


def grouped(reports: Iterable[Filed], key: Callable[[Filed], str]) -> dict[str, list[PastRun]]:
    """The runs by job, by day, or by whatever `key` says, in its order. Of a hundred thousand reports this keeps what matters."""
    groups: dict[str, list[PastRun]] = {}
    for report in reports:
        groups.setdefault(key(report), []).append(past(report))
    return dict(sorted(groups.items()))


def job_of(report: Filed) -> str:
    """The name of the run's job: a key for `grouped`."""
    return str(report.get("job") or "")


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


def totals(runs: Iterable[PastRun]) -> Totals:
    """The totals of these runs."""
    all_runs = list(runs)
    started = [run for run in all_runs if run.outcome != "refused"]
    figures = _figures(started)
    consumed = ZERO
    for each in figures:
        consumed = EXACT.add(consumed, each)
    return Totals(
        runs=len(started),
        refused=len(all_runs) - len(started),
        consumed=whole(consumed),
        over_budget=sum(run.over_budget for run in started),
        mean=rounded(EXACT.divide(consumed, Decimal(len(figures)))) if figures else None,
        p50=percentile(figures, 50) if figures else None,
        p90=percentile(figures, 90) if figures else None,
        abandoned=sum(run.outcome == "abandoned" for run in started),
        unsure=len(started) - len(figures),
    )


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


def suggest(job: str, runs: Iterable[PastRun]) -> Suggestion:
    """The budget for the job whose runs these are: what 95 % of them did not exceed, rounded up to two figures."""
    known = [run for run in runs if run.consumed is not None or run.outcome == "refused"]
    figures = _figures(known)
    p50, p90, p95 = (percentile(figures, percent) if figures else None for percent in (50, 90, 95))
    most = figures[-1] if figures else None
    if p95 is None or len(figures) < ENOUGH:
        have = "1 run has" if len(figures) == 1 else f"{len(figures) or 'no'} runs have"
        reason = f"{have} a sure figure, {ENOUGH} are needed"
        return Suggestion(job, len(figures), p50, p90, p95, most, None, reason, None, None)
    budget = max(_round(p95, p95.adjusted() - 1, ROUND_CEILING), ZERO)
    started = [run for run in known if run.free is None or run.free >= budget]
    over = sum(run.consumed is not None and run.consumed > budget for run in started)
    reason = f"95 % of {len(figures)} runs took {p95:f} or less{', rounded up' if budget > p95 else ''}"
    of = len(known)
    return Suggestion(job, len(figures), p50, p90, p95, most, budget, reason, (of - len(started)) / of, over / of)


def usually(runs: Iterable[PastRun]) -> str | None:
    """`usually 60-75, at most 79 in 12 runs`: four of five runs took that much, and none more. None if too few are known."""
    figures = _figures(runs)
    if len(figures) < ENOUGH:
        return None
    least = readable(percentile(figures, 10), ROUND_FLOOR)
    up_to = readable(percentile(figures, 90), ROUND_CEILING)
    span = f"{least:f}" if least == up_to else f"{least:f}-{up_to:f}"
    return f"usually {span}, at most {readable(figures[-1], ROUND_CEILING):f} in {len(figures)} runs"


def _figures(runs: Iterable[PastRun]) -> list[Decimal]:
    return sorted(run.consumed for run in runs if run.consumed is not None)


def readable(amount: Decimal, rounding: str = ROUND_HALF_EVEN) -> Decimal:
    """The amount for people: whole where it is whole, else with three figures."""
    return _round(amount, min(amount.adjusted() - 2, 0), rounding)


def _round(amount: Decimal, exponent: int, rounding: str) -> Decimal:
    unit = Decimal((0, (1,), exponent))
    return whole(EXACT.multiply(EXACT.divide(amount, unit).to_integral_value(rounding, EXACT), unit))
