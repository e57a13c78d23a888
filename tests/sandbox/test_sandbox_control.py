"""Control over HTTP: the same commands as from Python."""

from __future__ import annotations

import httpx
import pytest

from creditguard.sandbox import Gateway
from creditguard.sandbox.account import Account
from creditguard.sandbox.api import Api, Request
from creditguard.sandbox.faults import FaultScript
from creditguard.sandbox.paths import BALANCES, CONTROL, GENERATE, STATE


def test_the_pool_can_be_moved(client: httpx.Client, gateway: Gateway) -> None:
    assert client.post(CONTROL, json={"top_up": 30}).json()["data"]["credits"] == 150
    assert client.post(CONTROL, json={"drain": 100}).json()["data"]["credits"] == 50
    assert client.post(CONTROL, json={"set_credits": 7}).json()["data"]["credits"] == 7
    assert gateway.credits == 7


def test_commands_are_carried_out_in_their_order(client: httpx.Client) -> None:
    commands = {"set_credits": 10, "drain": 50, "top_up": 5}
    assert client.post(CONTROL, json=commands).json()["data"]["credits"] == 5


def test_python_and_http_do_the_same(client: httpx.Client) -> None:
    with Gateway() as other:
        other.lag(2)
        other.submit_cost = 3
        other.refund_delay = 1.5
        other.task_seconds = 2
        other.allow_negative = True
        other.fail_next_tasks(4)
        other.fault(status=500, times=2, skip=1)
        other.fault(path="*", delay=0.5)
        other.drain(1)
        other.top_up(2)
        expected = other.state()
    commands = {
        "lag": 2,
        "submit_cost": 3,
        "refund_delay": 1.5,
        "task_seconds": 2,
        "allow_negative": True,
        "fail_next_tasks": 4,
        "fault": [{"status": 500, "times": 2, "skip": 1}, {"path": "*", "delay": 0.5}],
        "drain": 1,
        "top_up": 2,
    }
    assert client.post(CONTROL, json=commands).json()["data"] == expected
    assert expected["credits"] == 121
    assert expected["faults"] == [
        {"path": BALANCES, "skip": 1, "left": 2, "fields": ["status"]},
        {"path": "*", "skip": 0, "left": None, "fields": ["delay"]},
    ]


def test_the_state_tells_everything(client: httpx.Client, gateway: Gateway) -> None:
    client.get(BALANCES)
    task_id = client.post(GENERATE, json={"simulate": "failed"}).json()["data"]["task_id"]
    client.post(GENERATE, json={"credits": 5})
    state = client.get(STATE).json()["data"]
    assert state["credits"] == 115
    assert (state["spent"], state["refunded"]) == (13, 8)
    assert state["requests"] == {BALANCES: 1, GENERATE: 2}
    assert state["balance_reads"] == 1
    assert state["tasks"][0]["task_id"] == task_id
    assert [task["status"] for task in state["tasks"]] == ["failed", "completed"]
    assert state == gateway.state()


def test_lag_over_http(client: httpx.Client) -> None:
    client.post(CONTROL, json={"lag": 1})
    shown = []
    for _ in range(3):
        shown.append(client.get(BALANCES).json()["data"]["api_credits"])
        client.post(GENERATE, json={"credits": 20})
    assert shown == [120, 120, 100]


def test_a_stranger_spends_between_two_readings(client: httpx.Client) -> None:
    plans = [{"drain": 30, "at_reading": 2}, {"top_up": 5, "at_reading": 3}]
    client.post(CONTROL, json={"schedule": plans})
    shown = [client.get(BALANCES).json()["data"]["api_credits"] for _ in range(4)]
    assert shown == [120, 90, 95, 95]


def test_a_schedule_from_python(client: httpx.Client, gateway: Gateway) -> None:
    gateway.schedule(drain=30, at_reading=2)
    gateway.schedule(top_up=1, after=0)
    shown = [client.get(BALANCES).json()["data"]["api_credits"] for _ in range(2)]
    assert shown == [121, 91]


@pytest.mark.parametrize(
    ("commands", "field"),
    [
        ({"topup": 5}, "topup"),
        ({"top_up": -5}, "top_up"),
        ({"top_up": 1.5}, "top_up"),
        ({"top_up": True}, "top_up"),
        ({"top_up": None}, "top_up"),
        ({"drain": "5"}, "drain"),
        ({"set_credits": 10**16}, "set_credits"),
        ({"lag": -1}, "lag"),
        ({"lag": 1001}, "lag"),
        ({"submit_cost": -1}, "submit_cost"),
        ({"refund_delay": "soon"}, "refund_delay"),
        ({"task_seconds": -1}, "task_seconds"),
        ({"allow_negative": 1}, "allow_negative"),
        ({"fail_next_tasks": -1}, "fail_next_tasks"),
        ({"clear_faults": 1}, "clear_faults"),
        ({"fault": {"status": 1}}, "fault.status"),
        ({"fault": 5}, "fault"),
        ({"schedule": 5}, "schedule"),
        ({"schedule": {"drain": 5}}, "schedule"),
        ({"schedule": {"after": 5}}, "schedule"),
        ({"schedule": {"drain": 5, "top_up": 5, "after": 1}}, "schedule"),
        ({"schedule": {"drain": 5, "at_reading": 1, "after": 1}}, "schedule"),
        ({"schedule": {"drain": 5, "when": 1}}, "schedule.when"),
        ({"schedule": {"drain": -5, "after": 1}}, "schedule.drain"),
        ({"schedule": {"drain": 5, "after": -1}}, "schedule.after"),
        ({"schedule": {"drain": 5, "at_reading": 0}}, "schedule.at_reading"),
        ([1], "body"),
    ],
)
def test_a_bad_command_is_refused_by_name_and_nothing_is_done(
    client: httpx.Client, gateway: Gateway, commands: object, field: str
) -> None:
    before = gateway.state()
    sent = {"top_up": 1000, **commands} if isinstance(commands, dict) else commands
    answer = client.post(CONTROL, json=sent)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("invalid_request", field)
    assert error["message"].startswith(f"{field}: ")
    assert gateway.state() == before


def test_clearing_nothing_is_fine(gateway: Gateway) -> None:
    gateway.fault(status=500)
    gateway.control(clear_faults=False)
    assert gateway.state()["faults"] != []


@pytest.mark.parametrize(("method", "path"), [("POST", CONTROL), ("GET", STATE)])
def test_control_is_for_this_machine_only(method: str, path: str) -> None:
    account = Account(120)
    api = Api(account, FaultScript(), "key")
    request = Request(method, path, "Bearer key", b'{"drain": 5}', local=False)
    assert api.answer(request, {}).status == 403
    assert account.credits == 120
    assert api.answer(request._replace(local=True), {}).status == 200


@pytest.mark.parametrize("amount", [1.5, True, "120", 10**16])
def test_a_gateway_needs_whole_credits(amount: int) -> None:
    with pytest.raises(ValueError, match="credits: must be a whole number"):
        Gateway(amount)
