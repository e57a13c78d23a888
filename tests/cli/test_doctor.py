"""`doctor`: what it finds, what it advises, what it ends with, and that it shows no secret."""

from __future__ import annotations

import json
import re
import socket
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import psycopg
import pytest
import scripted_server as scripted
from window import on_a_terminal, without_colour

from creditguard import guard


def states(done):
    return {each["check"]: each["state"] for each in json.loads(done.stdout)["checks"]}


def finding(done, check):
    return next(each for each in json.loads(done.stdout)["checks"] if each["check"] == check)


WELL = {"gateway": "ok", "key": "ok", "balance": "ok", "ledger": "ok", "holds": "ok", "clock": "ok"}


def test_all_is_well(past, gateway, creditguard, tmp_path):
    (tmp_path / "creditguard.toml").write_text("keep = 2.5\n[jobs.nightly]\nbudget = 80\n")
    with guard("nightly", budget=20) as run:
        done = creditguard("doctor", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (done.code, done.stderr, answer["ok"], answer["exit_code"]) == (0, "", True, 0)
    assert states(done) == WELL
    assert finding(done, "balance")["found"].startswith("120 credits (request req_")
    assert re.search(r"version \d+, can be written", finding(done, "ledger")["found"])
    assert finding(done, "holds")["found"] == "1 run holds 20 credits"
    assert [(hold["run_id"], hold["job"], hold["credits"]) for hold in answer["holds"]] == [(run.id, "nightly", 20)]
    settings = {each["name"]: (each["value"], each["origin"]) for each in answer["settings"]}
    assert settings["api_key"] == ("***", "APIMALL_API_KEY")
    assert settings["keep"] == (2.5, "keep in creditguard.toml")
    assert settings["jobs.nightly"] == (80, "[jobs.nightly] budget in creditguard.toml")
    assert {"path": str(tmp_path / "creditguard.toml"), "in_use": True} in answer["files"]


def test_for_people(past, gateway, creditguard):
    with guard("nightly", budget=20) as run:
        done = creditguard("doctor")
        lines = done.stdout.splitlines()
        assert (done.code, done.stderr) == (0, "")
        assert "  api_key        ***  (APIMALL_API_KEY)" in lines
        assert "  keep           0  (default)" in lines
        assert "  ok       key       accepted" in lines
        assert any(run.id in line and "nightly: 20 since" in line for line in lines)
        for columns in (40, 80, 120):
            shown, code = on_a_terminal("doctor", columns=columns)
            assert code == 0
            assert max(map(len, without_colour(shown).splitlines())) <= columns
            assert "\x1b[32mok     \x1b[0m" in shown
        assert "\x1b" not in on_a_terminal("doctor", NO_COLOR="1")[0]


@pytest.mark.parametrize(
    ("environment", "fault", "wrong", "code", "to_do"),
    [
        ({"APIMALL_API_KEY": None}, None, "key", 78, "creditguard sandbox -- creditguard doctor"),
        ({}, {"status": 401}, "key", 77, "APIMALL_API_KEY"),
        ({}, {"status": 403}, "key", 77, "API access"),
        ({}, {"status": 404}, "balance", 69, "try again"),
        ({}, {"body": "<html>"}, "balance", 65, "CREDITGUARD_BASE_URL"),
        ({"CREDITGUARD_LEDGER": "sqlite:////dev/null/ledger.db"}, None, "ledger", 69, "CREDITGUARD_LEDGER"),
        ({"CREDITGUARD_LEDGER": "sqlite:///"}, None, "ledger", 78, "CREDITGUARD_LEDGER"),
        ({"CREDITGUARD_LEDGER": "mysql://me:hush@host/db"}, None, "ledger", 78, "CREDITGUARD_LEDGER"),
        ({"CREDITGUARD_TIMEOUT": "soon"}, None, "settings", 78, "CREDITGUARD_TIMEOUT"),
        ({"CREDITGUARD_BASE_URL": "https://me:hush@gateway.apimall.ai"}, None, "settings", 78, "CREDITGUARD_BASE_URL"),
        ({"CREDITGUARD_BASE_URL": "http://gateway.apimall.ai"}, None, "settings", 78, "CREDITGUARD_BASE_URL"),
        ({"APIMALL_API_KEY": "two words"}, None, "settings", 78, "APIMALL_API_KEY"),
    ],
)  # fmt: skip
def test_what_is_wrong_what_to_do_and_the_code_of_check(gateway, creditguard, environment, fault, wrong, code, to_do):
    if fault:
        gateway.fault(path="/api/v1/account/balances", **fault)
    done = creditguard("doctor", "--json", env=environment)
    checked = creditguard("check", "--budget", 5, env=environment)
    gateway.clear_faults()
    assert (done.code, checked.code, json.loads(done.stdout)["ok"]) == (code, code, False)
    found = finding(done, wrong)
    assert found["state"] == "wrong"
    assert to_do in found["to_do"]
    for text in (done.stdout, creditguard("doctor", env=environment).stdout):
        assert "hush" not in text
    assert "ok" in states(done).values() or wrong == "settings"


def test_a_gateway_that_is_not_there(gateway, creditguard):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = creditguard("doctor", "--json", env={"CREDITGUARD_BASE_URL": url})
    assert (done.code, states(done)) == (69, {**WELL, "gateway": "wrong", "key": "unknown", "balance": "unknown"})
    assert "cannot be reached" in finding(done, "gateway")["found"]
    assert "CREDITGUARD_BASE_URL" in finding(done, "gateway")["to_do"]


def test_the_default_ledger_is_passed_over_as_check_does(gateway, creditguard):
    environment = {"CREDITGUARD_LEDGER": None, "XDG_STATE_HOME": "/dev/null"}
    done = creditguard("doctor", "--json", env=environment)
    assert (done.code, creditguard("check", "--budget", 5, env=environment).code) == (0, 0)
    assert states(done)["ledger"] == "warning"


def test_no_ledger_is_worth_a_word(gateway, creditguard):
    done = creditguard("doctor", "--json", env={"CREDITGUARD_LEDGER": "none"})
    assert (done.code, states(done)["ledger"]) == (0, "warning")


def test_a_role_that_may_only_read(postgres, gateway, creditguard):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS creditguard CASCADE")
        assert creditguard("ledger", "init", "--ledger", postgres.url).code == 0
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA creditguard TO reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA creditguard TO reader")
    done = creditguard("doctor", "--json", env={"CREDITGUARD_LEDGER": postgres.url_of("reader", "hush-hush")})
    assert (done.code, states(done)["ledger"], states(done)["holds"]) == (69, "wrong", "ok")
    assert "permission denied" in finding(done, "ledger")["found"]
    assert "hush" not in done.stdout
    assert json.loads(done.stdout)["settings"][4]["value"] == "postgresql://***"


def test_a_dead_runs_hold_is_pointed_at(past, gateway, creditguard):
    done = creditguard("run", "--budget", 20, "--name", "dies", "--", "sh", "-c", "kill -9 $PPID; sleep 1")
    found = creditguard("doctor", "--json")
    (hold,) = json.loads(found.stdout)["holds"]
    assert (found.code, states(found)["holds"], hold["job"]) == (0, "warning", "dies")
    assert f"creditguard holds release {hold['run_id']}" in finding(found, "holds")["to_do"]


@pytest.mark.parametrize(
    ("ahead", "state", "said"),
    [(0, "ok", "agrees"), (7200, "warning", "2 h behind"), (-600, "warning", "10 min ahead")],
)
def test_the_clock_is_held_against_the_gateways(gateway, creditguard, ahead, state, said):
    server = scripted.Server()
    try:
        date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=ahead), usegmt=True)
        server.script = [scripted.http(404, {}, Date=date), scripted.balance()]
        done = creditguard("doctor", "--json", env={"CREDITGUARD_BASE_URL": f"http://127.0.0.1:{server.port}"})
    finally:
        server.close()
    assert (done.code, states(done)["clock"]) == (0, state)
    assert said in finding(done, "clock")["found"]
