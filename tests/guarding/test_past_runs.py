"""A refusal cites past runs, and asks the ledger for them no more often than it must; who is admitted never asks."""

from __future__ import annotations

import pytest
from past_runs import report

from creditguard import InsufficientCredits, guard
from creditguard.errors import LedgerUnavailable
from creditguard.ledgers.sqlite import SqliteLedger


class Asked(SqliteLedger):
    """Counts how often its history is asked for, and may refuse to tell it."""

    asked = 0
    broken = False

    def history(self, **of):
        self.asked += 1
        if self.broken:
            raise LedgerUnavailable("no history today", self.name)
        return super().history(**of)


@pytest.fixture
def ledger(tmp_path, credit_gateway):
    ledger = Asked(str(tmp_path / "ledger.db"))
    with guard("nightly", budget=5, ledger=ledger) as run:
        pass
    for consumed in range(60, 72):
        each = report("nightly", consumed, account=run.report.account)
        ledger.settle(each["run_id"], each["account"], each)
    return ledger


def refusal(ledger, job="nightly"):
    with pytest.raises(InsufficientCredits) as caught, guard(job, budget=500, ledger=ledger):
        pass
    return caught.value


def test_a_crowd_of_one_job_that_is_refused_asks_once(ledger):
    found = {refusal(ledger).usually for _ in range(20)}
    assert (found, ledger.asked) == ({"usually 60-70, at most 71 in 13 runs"}, 1)
    assert str(refusal(ledger)).endswith(" (120 on the account) (usually 60-70, at most 71 in 13 runs)")
    assert (refusal(ledger, "other").usually, ledger.asked) == (None, 2)


def test_who_is_admitted_does_not_ask(ledger):
    for on_short in ("abort", "warn"):
        with guard("nightly", budget=5, on_short=on_short, ledger=ledger):
            pass
    with guard("nightly", budget=500, on_short="warn", ledger=ledger):
        pass
    assert ledger.asked == 0


def test_a_refusal_needs_no_history(ledger):
    ledger.broken = True
    assert (refusal(ledger).usually, refusal(ledger).shortfall) == (None, 380)
