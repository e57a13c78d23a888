"""`history` and `holds`: what is listed, added up, marked and written, on real ledgers, in a pipe and on a terminal."""

from __future__ import annotations

import csv
import io
import json
from argparse import Namespace
from datetime import datetime, timedelta

import pytest
from past_runs import refusal, report
from window import on_a_terminal, without_colour

from creditguard import guard
from creditguard.cli.table import answer_records
from creditguard.rules.report import Report


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_refused_and_abandoned_runs_are_listed_and_what_went_over_is_marked(past, creditguard):
    past.file(
        report("nightly", 72),
        report("nightly", 92.5),
        report("posters", None, basis="unknown", over_budget=True),
        refusal("nightly", 10),
        report("nightly", None, basis="unknown", outcome="abandoned", duration_s=None),
    )
    header, *listed = rows(creditguard("history").stdout)
    assert header == ["FINISHED", "JOB", "OUTCOME", "BUDGET", "CONSUMED", "OVER", "BASIS", "LEFT", "SECONDS", "RUN"]
    assert [row[2:10] for row in listed] == [
        ["nightly", "abandoned", "80", "-", "-", "unknown", "-", "-"],
        ["nightly", "refused", "80", "-", "-", "unknown", "-", "61.2"],
        ["posters", "succeeded", "80", "-", "yes", "unknown", "-", "61.2"],
        ["nightly", "succeeded", "80", "92.5", "12.5", "account_delta", "407.5", "61.2"],
        ["nightly", "succeeded", "80", "72", "-", "account_delta", "428", "61.2"],
    ]
    listed = rows(creditguard("history", "--job", "posters").stdout)[1:]
    assert [row[2] for row in listed] == ["posters"]


def test_totals_by_job(past, creditguard):
    past.file(
        *(report("small", 5) for _ in range(3)),
        report("big", 70),
        report("big", 90),
        report("big", 30.5),
        refusal("big", 3),
    )
    past.file(
        report("big", 60, basis="shared_account_delta"), report("big", None, basis="unknown", outcome="abandoned")
    )
    assert rows(creditguard("history", "--by", "job").stdout) == [
        ["JOB", "RUNS", "REFUSED", "CONSUMED", "OVER_BUDGET", "MEAN", "P50", "P90", "ABANDONED", "UNSURE"],
        ["big", "5", "1", "190.5", "1", "63.5", "70", "90", "1", "2"],
        ["small", "3", "0", "15", "0", "5", "5", "5", "0", "0"],
    ]
    big, small = json.loads(creditguard("history", "--by", "job", "--json").stdout)
    assert big == {
        "job": "big", "runs": 5, "refused": 1, "consumed": 190.5, "over_budget": 1, "mean": 63.5, "p50": 70, "p90": 90,
        "abandoned": 1, "unsure": 2,
    }  # fmt: skip
    (only,) = json.loads(creditguard("history", "--by", "job", "--job", "small", "--limit", 2, "--json").stdout)
    assert only == {**small, "runs": 2, "consumed": 10}
    table = creditguard("history", "--by", "job", "--csv").stdout
    assert table == (
        "job,runs,refused,consumed,over_budget,mean,p50,p90,abandoned,unsure\n"
        "big,5,1,190.5,1,63.5,70,90,1,2\nsmall,3,0,15,0,5,5,5,0,0\n"
    )  # fmt: skip


def test_totals_by_day_and_since(dated_past, creditguard):
    for days_ago in range(6):
        dated_past.file(report("nightly", 10 + days_ago), days_ago=days_ago)
    days = [f"{datetime.now().astimezone() - timedelta(days=ago):%Y-%m-%d}" for ago in range(5, -1, -1)]
    found = json.loads(creditguard("history", "--by", "day", "--json").stdout)
    assert [(each["day"], each["runs"], each["consumed"]) for each in found] == [
        (day, 1, 15 - at) for at, day in enumerate(days)
    ]
    assert [row[0] for row in rows(creditguard("history", "--by", "day", "--since", "3d12h").stdout)[1:]] == days[2:]
    for since, expected in (("36h", 2), (days[0], 6), (f"{days[3]}T00:00:00", 3)):
        assert len(json.loads(creditguard("history", "--since", since, "--json").stdout)) == expected
    assert len(json.loads(creditguard("history", "--since", "30d", "--limit", 4, "--json").stdout)) == 4


def test_without_a_period_the_latest_20_are_listed_and_with_one_all(past, creditguard):
    past.file(*(report("nightly", 1) for _ in range(25)))
    assert len(json.loads(creditguard("history", "--json").stdout)) == 20
    assert len(json.loads(creditguard("history", "--limit", 21, "--json").stdout)) == 21
    assert len(json.loads(creditguard("history", "--since", "1h", "--json").stdout)) == 25
    assert rows(creditguard("history", "--by", "job").stdout)[1][1] == "25"


def test_csv_has_all_that_was_reported(past, creditguard):
    past.file(report('a, "b"\x1b[2J', 7.5, labels={"team": "data"}))
    table = creditguard("history", "--csv").stdout
    (row,) = csv.DictReader(io.StringIO(table))
    assert row.keys() == {"finished_at", *Report.__slots__}
    assert (row["job"], row["credits_consumed"], row["drift"], row["over_budget"]) == (
        'a, "b"\\x1b[2J',
        "7.5",
        "",
        "false",
    )
    assert json.loads(row["labels"]) == {"team": "data"}
    assert "\x1b" not in table


def test_all_of_a_long_history_comes_as_csv_oldest_first_and_is_never_held_as_a_whole(past, creditguard, capsys):
    past.file(*(report(f"job-{at}", at) for at in range(25)))
    table = creditguard("history", "--since", "1h", "--csv").stdout
    assert [row["job"] for row in csv.DictReader(io.StringIO(table))] == [f"job-{at}" for at in range(25)]
    answered: list[str] = []

    def records():
        for at in range(8_000):
            if at % 2_000 == 1_999:
                answered.append(capsys.readouterr().out)
            yield {"run_id": at, "job": "x" * 90}

    answer_records(Namespace(json=False), ("run_id", "job"), records())
    assert all(answered)
    table = "".join([*answered, capsys.readouterr().out])
    assert [row["run_id"] for row in csv.DictReader(io.StringIO(table))] == [str(at) for at in range(8_000)]


def test_an_empty_period_says_so(past, creditguard):
    past.file(report("nightly", 5))
    for arguments in (("--by", "job"), ("--by", "day"), ()):
        done = creditguard("history", "--job", "other", "--since", "2020-02-03", *arguments)
        assert (done.code, done.stdout) == (0, "")
        assert done.messages == ["creditguard: no run of other has ended since 2020-02-03 00:00"]
    done = creditguard("history", "--job", "other", "--by", "day", "--json")
    assert (done.stdout, done.messages) == ("[]\n", [])
    done = creditguard("history", "--job", "other", "--by", "day", "--csv")
    assert (done.stdout, done.messages) == ("day,runs,refused,consumed,over_budget,mean,p50,p90,abandoned,unsure\n", [])


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("arguments", [(), ("--by", "job"), ("--by", "day")])
def test_on_a_terminal_it_fits(dated_past, columns, arguments):
    dated_past.file(
        report("a-job-with-a-name-that-nobody-should-type", 123456.5, budget=100000),
        report("夜間バッチ夜間バッチ夜間バッチ", 60, basis="shared_account_delta"),
        refusal("nightly", 3),
    )
    shown, code = on_a_terminal("history", *arguments, columns=columns)
    plain = without_colour(shown)
    assert code == 0
    assert max(sum(1 + (each > "\u2fff") for each in line) for line in plain.splitlines()) <= columns
    assert "CONSUMED" in plain
    assert ("DAY" if "day" in arguments else "JOB") in plain.split()
    if columns == 120 and not arguments:
        assert "a-job-with-a" in plain
        assert ".." in plain


def test_colours_are_for_terminals_that_want_them(dated_past, creditguard):
    dated_past.file(report("fine", 5), report("over", 95), refusal("nightly", 3))
    header, refused, over, fine = on_a_terminal("history")[0].splitlines()
    assert header.startswith("\x1b[1mFINISHED")
    assert refused.startswith("\x1b[33m2")
    assert over.startswith("\x1b[31m2")
    assert "\x1b" not in fine
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_a_terminal("history", **env)[0]
    assert "\x1b" not in creditguard("history").stdout


def test_holds_as_csv_of_a_job_and_on_a_terminal(past, gateway, creditguard):
    with guard("nightly", budget=20, labels={"team": "data"}) as run, guard("posters", budget=30):
        table = creditguard("holds", "--csv").stdout
        nightly, posters = csv.DictReader(io.StringIO(table))
        (as_json,) = json.loads(creditguard("holds", "--job", "nightly", "--json").stdout)
        assert list(nightly) == list(as_json)
        assert (nightly["run_id"], nightly["credits"], nightly["labels"]) == (run.id, "20", '{"team": "data"}')
        assert posters["job"] == "posters"
        done = creditguard("holds", "--job", "other")
        assert (done.code, done.stdout, done.messages) == (0, "", ["creditguard: nothing is held by other"])
        for columns in (40, 80, 120):
            shown, _ = on_a_terminal("holds", columns=columns)
            lines = without_colour(shown).splitlines()
            assert max(map(len, lines)) <= columns
            assert lines[1].startswith(run.id)


@pytest.mark.parametrize("command", ["history", "holds"])
def test_a_ledger_that_remembers_nothing_is_78(creditguard, command):
    for given, named in ((("--ledger", "none"), "--ledger is none"), ((), "CREDITGUARD_LEDGER is none")):
        done = creditguard(command, *given, env={"CREDITGUARD_LEDGER": "none"})
        assert (done.code, done.stdout, len(done.messages)) == (78, "", 1)
        assert named in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("history", "--since", "yesterday"), "--since"),
        (("history", "--since", ""), "--since"),
        (("history", "--since", "-3d"), "--since"),
        (("history", "--since", "7"), "--since"),
        (("history", "--since", "999999999999d"), "--since"),
        (("history", "--since", "2026-13-01"), "--since"),
        (("history", "--by", "week"), "--by"),
        (("history", "--json", "--csv"), "--csv"),
        (("holds", "--json", "--csv"), "--csv"),
    ],
)
def test_bad_input_is_64_and_one_line(creditguard, arguments, named):
    done = creditguard(*arguments)
    assert (done.code, done.stdout, len(done.messages)) == (64, "", 1)
    assert named in done.stderr
