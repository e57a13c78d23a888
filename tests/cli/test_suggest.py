"""`suggest`: a budget from past runs on real ledgers, the lines to paste, and too few runs."""

from __future__ import annotations

import json
import sys

import pytest
from past_runs import refusal, report
from window import on_a_terminal, without_colour

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_a_budget_is_suggested_and_can_be_pasted(past, creditguard, gateway, tmp_path):
    past.file(
        *(report("nightly", consumed) for consumed in range(50, 80)),
        report("nightly", 300, basis="shared_account_delta"),
    )
    past.file(report("nightly", 60, basis="recorded", headroom=77), report("nightly", 99), refusal("nightly", 12))
    past.file(*(report('odd "name"\x1b[2J', 0.125, headroom=500) for _ in range(5)))
    past.file(*(report("new", 3) for _ in range(4)))
    done = creditguard("suggest")
    assert (done.code, done.stderr) == (0, "")
    shown, paste = done.stdout.split("\n\n")
    rows = [line.split() for line in shown.splitlines()]
    assert rows[0] == ["JOB", "RUNS", "P50", "P90", "P95", "MAX", "BUDGET", "REFUSED", "OVER"]
    assert rows[1] == ["new", "4", "3", "3", "3", "3", "-", "-", "-"]
    assert rows[2] == ["nightly", "32", "64", "77", "79", "99", "79", "6.1%", "3%"]
    assert rows[3][-4:] == ["0.125", "0.13", "0%", "0%"]
    assert "# new: 4 runs have a sure figure, 5 are needed\n" in paste
    assert "[jobs.nightly]\nbudget = 79  # 95 % of 32 runs took 79 or less\n" in paste
    settings = tomllib.loads(paste)
    assert settings == {"jobs": {"nightly": {"budget": 79}, 'odd "name"\x1b[2J': {"budget": 0.13}}}
    (tmp_path / "creditguard.toml").write_text(paste)
    assert creditguard("check", "--name", "nightly", cwd=tmp_path).stdout.startswith("enough: needs 79 credits")


def test_as_json_of_one_job(past, creditguard):
    past.file(*(report("nightly", consumed) for consumed in (3, 4, 5, 6, 101)), report("other", 5))
    (found,) = json.loads(creditguard("suggest", "--job", "nightly", "--json").stdout)
    assert found == {
        "job": "nightly", "runs": 5, "p50": 5, "p90": 101, "p95": 101, "max": 101, "budget": 110,
        "reason": "95 % of 5 runs took 101 or less, rounded up", "refused": 0, "over": 0,
    }  # fmt: skip
    (found,) = json.loads(creditguard("suggest", "--job", "other", "--json").stdout)
    assert (found["budget"], found["reason"]) == (None, "1 run has a sure figure, 5 are needed")


def test_a_refusal_and_check_cite_past_runs(past, creditguard, gateway, tmp_path):
    account = json.loads(creditguard("balance", "--json").stdout)["account"]
    past.file(*(report("nightly", consumed, account=account) for consumed in range(60, 72)))
    past.file(*(report("nightly", 500, account="another") for _ in range(9)))
    usually = "usually 61-70, at most 71 in 12 runs"
    job = ("--name", "nightly", "--budget")
    done = creditguard("check", *job, 80)
    assert (done.code, done.stdout) == (0, f"enough: needs 80 credits, has 120 ({usually})\n")
    assert json.loads(creditguard("check", *job, 80, "--json").stdout)["usually"] == usually
    for command in (("check", *job, 500), ("run", *job, 500, "--", "touch", tmp_path / "ran")):
        done = creditguard(*command)
        (event,) = done.events
        assert (done.code, event["event"], event["usually"]) == (75, "creditguard.refused", usually)
        assert done.messages == [
            f"creditguard: nightly: needs 500 credits, 120 are free (120 on the account) ({usually})"
        ]
    assert json.loads(creditguard("check", "--budget", 80, "--json").stdout)["usually"] is None


def test_only_runs_of_the_period_count(dated_past, creditguard):
    dated_past.file(*(report("nightly", 500) for _ in range(5)), days_ago=20)
    dated_past.file(*(report("nightly", 5) for _ in range(5)))
    assert json.loads(creditguard("suggest", "--json").stdout)[0]["budget"] == 500
    assert json.loads(creditguard("suggest", "--since", "7d", "--json").stdout)[0]["budget"] == 5


def test_nothing_is_suggested_of_nothing(past, creditguard):
    done = creditguard("suggest", "--job", "nightly")
    assert (done.code, done.stdout, done.messages) == (0, "", ["creditguard: no run of nightly has ended yet"])
    assert creditguard("suggest", "--json").stdout == "[]\n"


@pytest.mark.parametrize("columns", [40, 80])
def test_on_a_terminal_the_table_fits(dated_past, columns):
    dated_past.file(*(report("a-job-with-a-name-that-nobody-types", 1234.5, budget=2000) for _ in range(9)))
    shown, code = on_a_terminal("suggest", columns=columns)
    lines = without_colour(shown).splitlines()
    assert code == 0
    assert max(map(len, lines[:2])) <= columns
    assert "BUDGET" in lines[0]
    assert lines[3] == "[jobs.a-job-with-a-name-that-nobody-types]"


def test_bad_input(creditguard):
    for arguments, code, named in (
        (("--since", "soon"), 64, "--since"),
        (("--csv",), 64, "--csv"),
        (("--ledger", "none"), 78, "--ledger is none"),
    ):
        done = creditguard("suggest", *arguments)
        assert (done.code, done.stdout, len(done.messages)) == (code, "", 1)
        assert named in done.stderr
