"""Past runs, filed with a real ledger."""

from __future__ import annotations

from itertools import count

from creditguard.ledgers import open_ledger
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.rules.report import Report

_numbers = count()


def report(job, consumed, *, budget=80, basis="account_delta", outcome="succeeded", **more):
    """A report as a run files it."""
    sure = basis in {"recorded", "account_delta"}
    return {
        **dict.fromkeys(Report.__slots__), "run_id": f"{next(_numbers):020x}", "job": job, "account": "ours", "source": "apimall",
        "unit": "credits", "budget": budget, "keep": 0, "labels": {}, "balance_before": 500, "held_by_others": 0, "headroom": 500,
        "shortfall": 0, "balance_after": None if consumed is None else 500 - consumed, "credits_consumed": consumed, "basis": basis,
        "over_budget": consumed is not None and consumed > budget if sure else None, "settled": True, "outcome": outcome,
        "duration_s": 61.25, **more,
    }  # fmt: skip


def refusal(job, headroom, *, budget=80):
    """The report of a run that was refused."""
    return report(
        job, None, budget=budget, basis="unknown", outcome="refused", headroom=headroom, shortfall=budget - headroom
    )


class Past:
    """A ledger to which past runs are added."""

    def __init__(self, url):
        self.url = url

    def file(self, *reports, days_ago=0):
        """File the reports; those of other days with a SQLite ledger only, whose clock can be set back."""
        ledger = open_ledger(self.url)
        if days_ago:
            ledger = SqliteLedger(self.url.removeprefix("sqlite:///"), skew=lambda: -86400.0 * days_ago)
        for each in reports:
            ledger.settle(each["run_id"], each["account"], each)
        ledger.close()
