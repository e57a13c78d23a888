"""What a page shows of the past runs, worked out in one pass over their reports. Pure.

Whatever is not exact stays told apart: a run's figure is `exact`, `at most` (others were on the account), `at least` or
`unknown`, and sums are made of like with like.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from creditguard.errors import ConfigurationError
from creditguard.rules.history import PastRun, Suggestion, number, suggest
from creditguard.rules.text import printable

Sure: TypeAlias = Literal["exact", "at most", "at least", "unknown", "refused"]

_SURE: Mapping[str, Sure] = {"recorded": "exact", "account_delta": "exact", "shared_account_delta": "at most"}
_TOP_UP = 0.01
"""A rise of the balance is worth a mark from this share of the highest balance on; less is a refund, as a rule."""
_NUMBERS = (int, float)
_BEYOND = 1e15
_LONG = 120
_SETTLING = timedelta(minutes=1)
"""Readings of several runs may be in a slightly wrong order: a rise within that of a balance as high is none."""


class RunPoint(NamedTuple):
    """One run, as the page needs it. Times are local, amounts in the account's unit."""

    id: str
    job: str
    account: str
    outcome: str
    ended: datetime
    seconds: float | None
    budget: float | None
    consumed: float | None
    """What was consumed, at most or at least, as `sure` says; None where it is not known."""
    sure: Sure
    over: bool
    """It went over its budget, for sure."""
    before: float | None
    after: float | None
    headroom: float | None
    shortfall: float | None
    labels: Mapping[str, object]


class BalancePoint(NamedTuple):
    """The balance of an account at a time."""

    at: datetime
    balance: float


class Rise(NamedTuple):
    """The balance rose by so much, by the time `at`: a top-up, or a refund."""

    at: datetime
    by: float
    to: float


@dataclass
class AccountLine:
    """The balance of one account over time."""

    name: str
    readings: list[BalancePoint] = field(default_factory=list)
    rises: list[Rise] = field(default_factory=list)
    lost: dict[date, float] = field(default_factory=dict)
    """What the account lost each day, top-ups aside: also to those who spend from it without a guard."""

    @property
    def last(self) -> BalancePoint | None:
        return self.readings[-1] if self.readings else None

    def follow(self) -> None:
        """Work out rises and losses, once all readings are there."""
        self.readings.sort()
        least = _TOP_UP * max((reading.balance for reading in self.readings), default=0.0)
        for at, (earlier, later) in enumerate(zip(self.readings, self.readings[1:], strict=False)):
            by = later.balance - earlier.balance
            if by > least and later.balance > self._highest_before(at + 1):
                self.rises.append(Rise(later.at, by, later.balance))
            elif by:
                day = later.at.date()
                self.lost[day] = self.lost.get(day, 0.0) - by

    def _highest_before(self, at: int) -> float:
        since, highest = self.readings[at].at - _SETTLING, self.readings[at - 1].balance
        for earlier in reversed(self.readings[max(at - 64, 0) : at]):
            if earlier.at < since:
                break
            highest = max(highest, earlier.balance)
        return highest


@dataclass
class History:
    """All that a page shows of a period."""

    since: datetime
    until: datetime
    unit: str
    runs: list[RunPoint]
    """Oldest first; refused ones too."""
    accounts: list[AccountLine]
    """Those with the most runs first."""

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(run.outcome for run in self.runs)

    @cached_property
    def started(self) -> list[RunPoint]:
        """The runs that were not refused."""
        return [run for run in self.runs if run.outcome != "refused"]

    @cached_property
    def burns(self) -> dict[str, Burn | None]:
        """How quickly each account empties."""
        return {account.name: burn(account, self.until) for account in self.accounts}

    def by_job(self) -> dict[str, list[RunPoint]]:
        """The runs of each job; the jobs that consumed most come first."""
        jobs: dict[str, list[RunPoint]] = {}
        for run in self.runs:
            jobs.setdefault(run.job, []).append(run)
        return dict(sorted(jobs.items(), key=lambda job: (-sum(run.consumed or 0.0 for run in job[1]), job[0])))


def collect(reports: Iterable[Mapping[str, Any]], since: datetime, until: datetime) -> History:
    """Read reports as a ledger gives them, oldest first. Raises ConfigurationError if they are in several units."""
    runs: list[RunPoint] = []
    accounts: dict[str, AccountLine] = {}
    units: Counter[str] = Counter()
    for report in reports:
        run = _run(report)
        runs.append(run)
        units.update([name_of(report["unit"])] if report.get("unit") else ())
        account = accounts.setdefault(run.account, AccountLine(run.account))
        if run.before is not None:
            account.readings.append(BalancePoint(_began(report, run), run.before))
        if run.after is not None:
            account.readings.append(BalancePoint(run.ended, run.after))
    if len(units) > 1:
        named = ", ".join(sorted(units))
        raise ConfigurationError(
            f"the runs are in several units ({named}): choose one account by --account", "--account"
        )
    for account in accounts.values():
        account.follow()
    busy = Counter(run.account for run in runs)
    ordered = sorted(accounts.values(), key=lambda account: -busy[account.name])
    return History(since, until, next(iter(units), "credits"), runs, ordered)


def _run(report: Mapping[str, Any]) -> RunPoint:
    outcome = name_of(report.get("outcome"))
    consumed, at_least = _number(report, "credits_consumed"), _number(report, "consumed_at_least")
    sure: Sure = "unknown"
    if outcome == "refused":
        sure = "refused"
    elif consumed is not None:
        sure = _SURE.get(str(report.get("basis")), "unknown")
    elif at_least is not None:
        consumed, sure = at_least, "at least"
    labels = report.get("labels")
    return RunPoint(
        id=name_of(report.get("run_id")),
        job=name_of(report.get("job")),
        account=name_of(report.get("account")),
        outcome=outcome,
        ended=_local(str(report["finished_at"])),
        seconds=_number(report, "duration_s"),
        budget=_number(report, "budget"),
        consumed=consumed,
        sure=sure,
        over=report.get("over_budget") is True,
        before=_number(report, "balance_before"),
        after=_number(report, "balance_after"),
        headroom=_number(report, "headroom"),
        shortfall=_number(report, "shortfall"),
        labels=labels if isinstance(labels, dict) else {},
    )


def _number(report: Mapping[str, Any], name: str) -> float | None:
    value: Any = report.get(name)
    return value if type(value) in _NUMBERS and abs(value) < _BEYOND else None


def name_of(value: object) -> str:
    """A name from a report, fit to be shown: on one line, without control characters, and not endless."""
    text = printable(str(value or "-"))
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _local(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()


def _began(report: Mapping[str, Any], run: RunPoint) -> datetime:
    if run.seconds is not None:
        return run.ended - timedelta(seconds=run.seconds)
    return _local(str(report["since"])) if report.get("since") else run.ended


def suggestion(job: str, runs: Iterable[RunPoint]) -> Suggestion:
    """The budget that these runs of a job suggest."""
    return suggest(job, map(_past, runs))


def _past(run: RunPoint) -> PastRun:
    return PastRun(
        run.job, run.outcome, number(run.consumed) if run.sure == "exact" else None, number(run.headroom), run.over
    )


class Consumed(NamedTuple):
    """What several runs consumed together."""

    exact: float
    more_at_most: float
    """The sum of the upper bounds. Runs that were on one account at once are each charged with what all of them spent."""
    more_at_least: float
    exact_runs: int
    bounded_runs: int
    unknown_runs: int
    """Runs of which nothing is known, or a lower bound alone."""

    @property
    def least(self) -> float:
        return self.exact + self.more_at_least

    @property
    def is_exact(self) -> bool:
        return not self.bounded_runs and not self.unknown_runs


def consumed(runs: Iterable[RunPoint]) -> Consumed:
    """Add up what runs consumed."""
    sums: dict[Sure, float] = dict.fromkeys(("exact", "at most", "at least", "unknown", "refused"), 0.0)
    counts: Counter[Sure] = Counter()
    for run in runs:
        sums[run.sure] += run.consumed or 0.0
        counts[run.sure] += 1
    return Consumed(
        round(sums["exact"], 6),
        round(sums["at most"], 6),
        round(sums["at least"], 6),
        counts["exact"],
        counts["at most"],
        counts["at least"] + counts["unknown"],
    )


class Burn(NamedTuple):
    """How quickly an account empties. `soonest` and `latest` hold in four cases of five, if days go on as they did; None
    where there are too few days to say; infinite where it may be never."""

    days: float
    """How many days it was seen."""
    a_day: float
    until_empty: float | None = None
    soonest: float | None = None
    latest: float | None = None


_FEW_DAYS = 5
_FOUR_IN_FIVE = 1.2816
"""The normal quantile that leaves a tenth on each side."""
_TEN_YEARS = 3650
_NEVER = float("inf")


def burn(account: AccountLine, until: datetime) -> Burn | None:
    """How quickly the account empties; None if it was seen for less than a day, or has no balance."""
    if account.last is None:
        return None
    first = account.readings[0].at
    days = (until - first) / timedelta(days=1)
    if days < 1:
        return None
    a_day = sum(account.lost.values()) / days
    balance = account.last.balance
    if a_day <= 0:
        return Burn(days, max(a_day, 0.0))
    empty = max(balance / a_day, 0.0)
    whole = [first.date() + timedelta(days=n) for n in range(1, (until.date() - first.date()).days)]
    if len(whole) < _FEW_DAYS or balance <= 0:
        return Burn(days, a_day, empty)
    losses = [account.lost.get(day, 0.0) for day in whole]
    return Burn(days, a_day, empty, *_range(balance, a_day, statistics.variance(losses), len(losses)))


def _range(balance: float, a_day: float, variance: float, days: int) -> tuple[float, float]:
    """When `balance` may be used up: what is lost in T days is about T·a_day, give or take the spread of T single days and
    what `days` days do not tell of the mean. So these are the roots of (balance - T·a_day)² = spread·(T + T²/days)."""
    spread = _FOUR_IN_FIVE**2 * variance
    square = a_day**2 - spread / days
    linear = 2 * a_day * balance + spread
    root = (spread * (spread + 4 * a_day * balance + 4 * balance**2 / days)) ** 0.5
    latest = (linear + root) / (2 * square) if square > 0 else _NEVER
    return 2 * balance**2 / (linear + root), latest if latest < _TEN_YEARS else _NEVER
