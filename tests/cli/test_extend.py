"""`creditguard extend` and shrinking holds, in a wrapped command."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

from creditguard.ledgers import open_ledger

ME = f"{sys.executable} -m creditguard"


def holds():
    return {each.hold.job: each.hold.amount // 10**6 for each in open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds()}


def test_a_wrapped_command_asks_for_more(gateway, creditguard, tmp_path):
    report = tmp_path / "report.json"
    script = f"{ME} extend 30 && {ME} holds --json && {ME} record 60"  # which shrinks the hold, half a second later
    done = creditguard("run", "--budget", 50, "--name", "grows", "--report-file", report, "--", "sh", "-c", script)
    assert done.code == 0, done.stderr
    said, listed = done.stdout.splitlines()
    assert said == "30 more"
    assert [hold["credits"] for hold in json.loads(listed)] == [80]
    written = json.loads(report.read_text())
    assert (written["budget"], written["credits_recorded"], written["over_budget"]) == (80, 60, False)
    (extended,) = (event for event in done.events if event["event"] == "creditguard.extended")
    assert (extended["job"], extended["budget"]) == ("grows", 80)


def test_the_budget_grows_by_each(gateway, creditguard, tmp_path):
    report = tmp_path / "report.json"
    script = f"{ME} extend 30 && {ME} record 4 && {ME} extend 0.5 && {ME} extend 10"
    done = creditguard("run", "--budget", 50, "--report-file", report, "--", "sh", "-c", script)
    assert [event["budget"] for event in done.events if event["event"] == "creditguard.extended"] == [80, 80.5, 90.5]
    assert json.loads(report.read_text())["budget"] == 90.5


@pytest.mark.parametrize(
    "harm", ["rm FILE; mkfifo FILE", "rm FILE; mkdir FILE", "echo extend lots >> FILE; echo extend -4 >> FILE"]
)
def test_whatever_has_become_of_the_record_file_it_is_not_waited_for(gateway, creditguard, harm):
    script = f"{harm}; {ME} extend 30; rm -rf FILE".replace("FILE", '"$CREDITGUARD_RECORD_FILE"')
    done = creditguard("run", "--budget", 50, "--", "sh", "-c", script)
    assert [event["budget"] for event in done.events if event["event"] == "creditguard.extended"] == [80]


LATE = f"""
import os, subprocess, time
from creditguard.cli.record_file import append
from creditguard.guarding.guard import extend_run
extend_run(os.environ["CREDITGUARD_RUN_ID"], "python", 30, 50)
append("10")
time.sleep(2.5)
subprocess.run("{ME} holds --json", shell=True)
append("extend 30")
time.sleep(2.5)
subprocess.run("{ME} holds --json", shell=True)
"""


def test_a_hold_that_grew_does_not_shrink_before_run_is_told_of_it(gateway, creditguard):
    """Between the ledger's yes and the line in the file, what was recorded is to shrink the hold: by a budget that was."""
    done = creditguard("run", "--budget", 50, "--", sys.executable, "-c", LATE)
    assert done.code == 0, done.stderr
    assert [json.loads(line)[0]["credits"] for line in done.stdout.splitlines()] == [80, 70]


def test_what_does_not_fit_changes_nothing(gateway, creditguard):
    script = f"{ME} extend 100; echo $?; {ME} holds --json"
    done = creditguard("run", "--budget", 50, "--name", "grows", "--", "sh", "-c", script)
    code, listed = done.stdout.splitlines()
    assert code == "75"
    assert [hold["credits"] for hold in json.loads(listed)] == [50]
    refusal = "needs 100 credits, 70 are free (120 on the account, 50 held, this run's own included)"
    assert done.messages == [f"creditguard: grows: {refusal}"]


@pytest.mark.parametrize("nonsense", ["-1", "many", "nan"])
def test_nonsense_is_a_usage_error(gateway, creditguard, nonsense):
    assert creditguard("extend", nonsense).code == 64


def test_outside_of_a_run_it_says_where_it_works(gateway, creditguard):
    done = creditguard("extend", 5)
    assert done.code == 78
    assert "inside of creditguard run" in done.messages[-1]


def test_of_a_run_that_has_ended_or_was_made_up_it_says_so(gateway, creditguard, tmp_path):
    made_up = {
        "CREDITGUARD_RUN_ID": "made-up",
        "CREDITGUARD_BUDGET": "50",
        "CREDITGUARD_RECORD_FILE": f"{tmp_path}/gone",
    }
    done = creditguard("extend", 5, env=made_up)
    assert (done.code, done.messages[-1]) == (69, "creditguard: the run has no hold any more that could be extended")
    done = creditguard("extend", 5, env={**made_up, "CREDITGUARD_BUDGET": "many"})
    assert (done.code, "CREDITGUARD_BUDGET must be a number" in done.messages[-1]) == (78, True)
    done = creditguard("record", 5, env=made_up)
    assert (done.code, "CREDITGUARD_RECORD_FILE" in done.messages[-1]) == (78, True)
    assert holds() == {}


def test_the_hold_of_a_command_shrinks_by_what_it_records(gateway, creditguard):
    script = f"{ME} record 40; sleep 2.5; {ME} holds --json"
    done = creditguard("run", "--budget", 50, "--", "sh", "-c", script)
    assert [hold["credits"] for hold in json.loads(done.stdout)] == [10]
    deadline = time.monotonic() + 2
    while holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert holds() == {}
