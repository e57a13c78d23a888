"""One sentence for each event, from the event alone."""

from __future__ import annotations

import pytest

from creditguard.prefect.sentences import sentence
from creditguard.rules.events import Event

FIELDS = {
    "job": "nightly",
    "unit": "credits",
    "budget": 80,
    "balance_before": 120,
    "held_by_others": 0,
    "headroom": 120,
    "shortfall": 0,
}
FINISHED = FIELDS | {
    "outcome": "succeeded",
    "balance_after": 48,
    "credits_consumed": 72,
    "basis": "account_delta",
    "duration_s": 120.0,
}
OVERRUN = FIELDS | {"cause": "budget", "spent": 90, "spent_basis": "recorded", "stopping": False, "balance_now": 30}

SENTENCES = [
    ("admitted", FIELDS, "nightly: admitted, 80 of 120 credits held"),
    ("admitted", FIELDS | {"balance_before": None}, "nightly: admitted, 80 credits held"),
    (
        "refused",
        FIELDS | {"headroom": 48, "shortfall": 32, "held_by_others": 72},
        "nightly: refused, needs 80 credits, 48 are free (120 on the account, 72 held by others)",
    ),
    (
        "short",
        FIELDS | {"headroom": -5.5, "balance_before": 1234567.25},
        "nightly: started although short, needs 80 credits, 0 are free (1,234,567.25 on the account)",
    ),
    ("unreadable", FIELDS | {"policy": "abort", "reason": "no answer"}, "nightly: refused, no answer"),
    ("unreadable", FIELDS | {"policy": "none", "reason": "no answer"}, "nightly: goes on, no answer"),
    (
        "ledger_unavailable",
        FIELDS | {"policy": "warn", "reason": "it is locked"},
        "nightly: started all the same, it is locked",
    ),
    ("threshold", OVERRUN | {"threshold": 0.8, "spent": 64}, "nightly: 80% of the budget is spent, 64 of 80 credits"),
    ("overrun", OVERRUN, "nightly: over its budget, spent 90 of 80 credits"),
    (
        "overrun",
        OVERRUN | {"cause": "stop_below", "stop_below": 40, "stopping": True},
        "nightly: 30 credits are left, fewer than 40, the job is told to stop",
    ),
    ("lease_lost", FIELDS | {"reason": "the hold lapsed"}, "nightly: lease lost, the hold lapsed"),
    ("waiting", FIELDS, "nightly: waiting"),
    ("finished", FINISHED, "nightly: consumed 72 of 80 credits in 2 min, 48 left"),
    (
        "finished",
        FINISHED | {"outcome": "failed", "basis": "shared_account_delta", "duration_s": 5400.0},
        "nightly: failed, consumed at most 72 of 80 credits in 1.5 h, 48 left",
    ),
    (
        "finished",
        FINISHED | {"credits_consumed": None, "basis": "unknown", "balance_after": None, "duration_s": 0.25},
        "nightly: consumed an unknown part of 80 credits in 0.2 s",
    ),
]


@pytest.mark.parametrize(("name", "fields", "expected"), SENTENCES)
def test_its_sentence(name, fields, expected):
    assert sentence(Event(f"creditguard.{name}", "info", fields)) == expected
