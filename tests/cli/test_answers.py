"""`balance` and `check`: what they answer, and where they say it."""

from __future__ import annotations

import json

import pytest

from creditguard import guard


def test_balance(gateway, creditguard):
    done = creditguard("balance")
    assert (done.code, done.stdout, done.stderr) == (0, "120\n", "")
    answer = json.loads(creditguard("balance", "--json").stdout)
    assert (answer["balance"], answer["unit"], answer["source"]) == (120, "credits", "apimall")
    assert answer["request_id"].startswith("req_")


def test_a_negative_balance_is_a_balance(gateway, creditguard):
    gateway.set_credits(-7)
    assert creditguard("balance").stdout == "-7\n"
    assert creditguard("check", "--budget", 0).code == 75


def test_check_answers_by_its_exit_code(gateway, creditguard):
    done = creditguard("check", "--budget", 120)
    assert (done.code, done.stdout) == (0, "enough: needs 120 credits, has 120\n")
    assert done.names == ["admitted"]
    done = creditguard("check", "--budget", 121)
    assert (done.code, done.stdout) == (75, "")
    assert done.names == ["refused"]
    assert done.messages == ["creditguard: check: needs 121 credits, 120 are free (120 on the account)"]


def test_check_as_json(gateway, creditguard):
    answer = json.loads(creditguard("check", "--budget", "12.5", "--json").stdout)
    assert (answer["enough"], answer["budget"], answer["headroom"], answer["shortfall"]) == (True, 12.5, 120, 0)
    done = creditguard("check", "--budget", 500, "--json")
    assert json.loads(done.stdout)["enough"] is False
    assert done.code == 75
    gateway.fault(status=401)
    done = creditguard("check", "--budget", 500, "--json")
    assert json.loads(done.stdout)["enough"] is None
    assert done.code == 77


def test_check_counts_what_others_hold_and_holds_nothing(gateway, creditguard):
    with guard("other", budget=80):
        done = creditguard("check", "--budget", 80)
        assert done.code == 75
        assert done.events[0]["held_by_others"] == 80
        assert creditguard("check", "--budget", 40).code == 0
        assert creditguard("check", "--budget", 40).code == 0


def test_warn_mode_is_success(gateway, creditguard):
    done = creditguard("check", "--budget", 500, "--on-short", "warn")
    assert (done.code, done.stdout, done.names) == (0, "short: needs 500 credits, has 120\n", ["short"])
    gateway.fault(status=403)
    done = creditguard("check", "--budget", 500, "--on-short", "warn")
    assert (done.code, done.names) == (0, ["unreadable"])
    assert done.stdout.startswith("unknown: needs 500 credits")


def test_quiet_logs_no_good_news(gateway, creditguard):
    assert creditguard("check", "--budget", 5, "-q").stderr == ""
    assert creditguard("check", "--budget", 500, "-q").names == ["refused"]


def test_keep_labels_and_name_are_in_the_event(gateway, creditguard):
    done = creditguard("check", "--budget", 5, "--keep", "-10", "--name", "nightly", "--label", "team=data")
    (event,) = done.events
    assert (event["job"], event["keep"], event["labels"]) == ("nightly", -10, {"team": "data"})


@pytest.mark.parametrize(("code", "expected"), [(99, 99), (0, 0)])
def test_another_code_for_short(gateway, creditguard, code, expected):
    assert creditguard("check", "--budget", 500, "--short-code", code).code == expected


def test_systemd_sees_what_is_wrong(gateway, creditguard):
    assert creditguard("check", "--systemd", "--budget", 5).code == 0
    assert creditguard("check", "--systemd", "--budget", 500).code == 75
    assert creditguard("check", "--systemd", "--budget", 500, "--short-code", 3).code == 3
    assert creditguard("check", "--systemd", "--budget", "12x").code == 255
    assert creditguard("check", "--systemd", "--budgte", 5).code == 255
    assert creditguard("check", "--systemd", "--budget", 5, env={"APIMALL_API_KEY": None}).code == 255
    gateway.fault(status=401)
    assert creditguard("check", "--systemd", "--budget", 5).code == 255


def test_events_for_people(gateway, creditguard):
    done = creditguard("check", "--budget", 500, env={"CREDITGUARD_LOG_FORMAT": "console"})
    assert done.code == 75
    assert "check: refused, needs 500 credits, 120 are free (120 on the account): top up 380" in " ".join(
        done.stderr.split()
    )
    assert done.events == []
