"""One sentence for each event: numbers first, in the words of people."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from creditguard.rules import events
from creditguard.rules.events import Event
from creditguard.rules.sentences import amount, duration, sentence
from creditguard.rules.text import width
from creditguard.sinks.stderr import console_text

RUN = {
    "job": "nightly", "account": "acct", "unit": "credits", "budget": 80, "keep": 0, "balance_before": 120,
    "held_by_others": 0, "headroom": 120, "shortfall": 0, "labels": {},
}  # fmt: skip
SHORT = RUN | {"job": "posters", "balance_before": 48, "headroom": 48, "shortfall": 32}
CROWDED = RUN | {"budget": 30, "balance_before": 50, "held_by_others": 80, "headroom": -30, "shortfall": 60}
REPORT = RUN | {
    "credits_consumed": 72, "basis": "account_delta", "balance_after": 48, "duration_s": 123.0, "outcome": "succeeded",
    "over_budget": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        (events.ADMITTED, RUN, "nightly: admitted, 80 of 120 credits held"),
        (events.ADMITTED, RUN | {"held": 80}, "nightly: admitted, 80 of 120 credits held"),
        (events.ADMITTED, RUN | {"held": 0}, "nightly: admitted, 80 of 120 credits needed, none held"),
        (
            events.ADMITTED, RUN | {"held": 0, "held_by_others": 20},
            "nightly: admitted, 80 of 120 credits needed, none held, 20 by others",
        ),
        (events.ADMITTED, RUN | {"held_by_others": 20}, "nightly: admitted, 80 of 120 credits held, 20 more by others"),
        (
            events.REFUSED, SHORT,
            "posters: refused, needs 80 credits, 48 are free (48 on the account): top up 32, or declare less",
        ),
        (
            events.REFUSED, SHORT | {"usually": "usually 60-75, at most 79 in 12 runs"},
            ("posters: refused, needs 80 credits, 48 are free (48 on the account) (usually 60-75, at most 79 in 12 runs):"
            " top up 32, or declare less"),
        ),
        (
            events.REFUSED, CROWDED,
            ("nightly: refused, needs 30 credits, 0 are free (50 on the account, 80 held by others): top up 60, or wait"
            " for the others, or declare less"),
        ),
        (
            events.WAITING, CROWDED | {"others": 2},
            "nightly: waiting for room, needs 30 credits, 0 are free (50 on the account, 80 held by 2 others)",
        ),
        (events.WAITING, SHORT, "posters: waiting for room, needs 80 credits, 48 are free (48 on the account)"),
        (events.FINISHED, REPORT, "nightly: consumed 72 of 80 credits in 2 min, 48 left"),
        (
            events.FINISHED, REPORT | {"credits_consumed": 90, "over_budget": True, "outcome": "failed"},
            "nightly: failed, consumed 90 of 80 credits in 2 min, 48 left, 10 over budget",
        ),
        (
            events.FINISHED, REPORT | {"basis": "shared_account_delta"},
            "nightly: consumed at most 72 of 80 credits in 2 min, 48 left",
        ),
        (
            events.FINISHED, REPORT | {"credits_consumed": None, "balance_after": None, "basis": "unknown"},
            "nightly: consumed an unknown number of credits (budget 80) in 2 min",
        ),
        (
            events.FINISHED, REPORT | {"credits_consumed": None, "consumed_at_least": 50, "basis": "unknown"},
            "nightly: consumed at least 50 of 80 credits in 2 min, 48 left",
        ),
        (
            events.UNREADABLE, RUN | {"stage": "before", "policy": "abort", "reason": "no answer"},
            "nightly: refused, the balance could not be read: no answer",
        ),
        (
            events.LEDGER_UNAVAILABLE, RUN | {"stage": "before", "policy": "passed_over", "reason": "read-only"},
            "nightly: it is done without: the ledger could not be used: read-only",
        ),
        (
            events.THRESHOLD,
            RUN | {"threshold": 0.5, "spent": 40, "spent_basis": "recorded", "balance_now": 80},
            "nightly: 50 % of the budget spent, 40 of 80 credits, 80 left",
        ),
        (
            events.OVERRUN,
            RUN | {"cause": "budget", "spent": 90, "spent_basis": "recorded", "stopping": True},
            "nightly: stopped, over its budget: 90 of 80 credits spent",
        ),
        (
            events.ABANDONED, RUN | {"held": 30, "since": "2026-01-01T00:00:00+00:00"},
            ("nightly: abandoned, its process died with 30 credits held since 2026-01-01T00:00:00+00:00, the account had"
            " 120: look up what it spent, nobody reported it"),
        ),
        (
            events.LEDGER_UNAVAILABLE,
            RUN | {"stage": "after", "policy": "none", "reason": "it is busy"},
            "nightly: the ledger could not be told of the end, and will be told later: it is busy",
        ),
        (
            events.OVERRUN,
            RUN | {"cause": "budget", "spent": 90, "spent_basis": "shared_account_delta", "stopping": False},
            "nightly: over its budget: at most 90 of 80 credits spent; raise the budget, or have it stopped (on overrun: stop)",
        ),
        (events.FINISHED, SHORT | {"outcome": "refused"}, "posters: refused, needs 80 credits, 48 are free (48 on the account)"),
        (events.FINISHED, RUN | {"outcome": "refused", "balance_before": None}, "nightly: refused"),
        (
            events.FINISHED,
            RUN | {"outcome": "abandoned", "balance_before": None},
            "nightly: abandoned, its process died with 80 credits held: look up what it spent, nobody reported it",
        ),
        ("creditguard.of_the_future", RUN, "nightly: of the future"),
        (events.EXTENDED, RUN | {"extended_by": 20, "budget": 100}, "nightly: budget raised by 20 to 100 credits"),
    ],
)  # fmt: skip
def test_sentences(name, fields, said):
    assert sentence(name, fields) == said


def test_each_event_of_the_schema_has_a_sentence_of_its_own():
    schema = json.loads(files("creditguard").joinpath("events.schema.json").read_text())
    everything = REPORT | {
        "stage": "before", "policy": "warn", "reason": "why", "threshold": 0.5, "spent": 1, "spent_basis": "unknown",
        "balance_now": 1, "cause": "stop_below", "stop_below": 2, "stopping": True, "balance_delta": 3,
        "credits_recorded": 4, "held": 5, "since": "then", "extended_by": 6, "lagging": True,
    }  # fmt: skip
    said = {name: sentence(f"creditguard.{name}", everything) for name in schema["$defs"] if name != "run"}
    assert all(text.startswith("nightly: ") for text in said.values())
    assert len(set(said.values())) == len(said)


@pytest.mark.parametrize(
    ("value", "text"), [(80, "80"), (0.25, "0.25"), (1e12, "1000000000000"), (80.0, "80"), (None, "?")]
)
def test_amounts(value, text):
    assert amount(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.4, "0.4 s"),
        (45, "45 s"),
        (123, "2 min"),
        (3900, "1 h 5 min"),
        (3600, "1 h"),
        (180000, "2 d 2 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_line_fits_the_terminal(width):
    event = Event(events.REFUSED, "error", CROWDED | {"labels": {"team": "data", "shift": "\x1b[31mnight"}})
    text = console_text(event, width)
    first, *rest = text.split("\n")
    assert len("12:34:56 [warning] " + first) <= width
    assert all(len(line) <= width for line in rest)
    assert "team=data" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(("text", "columns"), [("plain", 5), ("", 0), ("日本", 4), ("é", 1), ("e\u0301", 1)])
def test_the_width_of_a_text_is_what_a_terminal_takes_for_it(text, columns):
    assert width(text) == columns
