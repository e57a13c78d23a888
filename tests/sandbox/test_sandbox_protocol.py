"""The documented endpoints, over real sockets."""

from __future__ import annotations

import re
import threading
import time

import httpx
import pytest

from creditguard.sandbox import Gateway
from creditguard.sandbox.paths import BALANCES, CONTROL, GENERATE, STATE, TASK


def submit(client: httpx.Client, **body: object) -> httpx.Response:
    return client.post(GENERATE, json={"model": "nano-banana", "prompt": "a fox", **body})


def test_the_balance(client: httpx.Client) -> None:
    answer = client.get(BALANCES)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    request_id = body.pop("request_id")
    assert body == {"success": True, "data": {"credits": 120, "api_credits": 120}}
    assert re.fullmatch(r"req_[0-9A-F]{26}", request_id)


def test_a_query_string_changes_nothing(client: httpx.Client, gateway: Gateway) -> None:
    assert client.get(f"{BALANCES}?fresh=1").json()["success"] is True
    assert gateway.requests == {BALANCES: 1}


def test_request_ids_are_unique(client: httpx.Client) -> None:
    ids = [client.get(path).json()["request_id"] for path in (BALANCES, "/nope") * 10]
    assert len(set(ids)) == 20


def test_the_key_looks_like_a_key_and_is_never_the_same() -> None:
    keys = {Gateway().key for _ in range(5)}
    assert len(keys) == 5
    assert all(re.fullmatch(r"sk-[0-9a-f]{48}", key) for key in keys)


def test_the_key_is_not_in_the_repr(gateway: Gateway) -> None:
    assert gateway.key not in repr(gateway)
    assert "credits=120" in repr(gateway)


@pytest.mark.parametrize("path", [BALANCES, GENERATE, "/api/v1/images/x", "/nope", CONTROL, STATE])
@pytest.mark.parametrize("offered", [None, "", "Bearer", "Bearer wrong", "Basic {key}", "{key}"])
def test_no_or_another_key_is_401(http: httpx.Client, gateway: Gateway, path: str, offered: str | None) -> None:
    headers = {} if offered is None else {"Authorization": offered.format(key=gateway.key)}
    method = "POST" if path in (GENERATE, CONTROL) else "GET"
    answer = http.request(method, gateway.url + path, headers=headers)
    assert answer.status_code == 401
    body = answer.json()
    assert body["success"] is False
    assert body["error"]["code"] == "unauthorized"
    assert body["error"]["message"]
    assert body["request_id"].startswith("req_")
    assert gateway.credits == 120
    assert gateway.balance_reads == 0


def test_a_key_of_ones_own(http: httpx.Client) -> None:
    key = "sk-" + "é" * 8
    with Gateway(key=key) as gateway:
        headers = {b"authorization": f"bearer {key}".encode()}
        answer = http.get(gateway.url + BALANCES, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/api/v1/account/balance"),
        ("POST", BALANCES),
        ("GET", "/api/v1/images/img_0"),
        ("DELETE", GENERATE),
        ("GET", CONTROL),
    ],
)
def test_what_there_is_not_is_404(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["success"] is False
    assert answer.json()["error"]["code"] == "not_found"


def test_a_submit_debits_and_says_what_remains(client: httpx.Client, gateway: Gateway) -> None:
    body = submit(client).json()
    data = body["data"]
    assert (data["credits_used"], data["remaining_credits"]) == (8, 112)
    assert data["model"] == "nano-banana"
    assert data["request_id"] != body["request_id"]
    assert gateway.credits == 112
    assert client.get(BALANCES).json()["data"]["api_credits"] == 112


def test_a_submit_may_cost_anything(client: httpx.Client, gateway: Gateway) -> None:
    assert submit(client, credits=0).json()["data"]["credits_used"] == 0
    assert submit(client, credits=101).json()["data"]["remaining_credits"] == 19
    gateway.submit_cost = 19
    assert submit(client).json()["data"]["remaining_credits"] == 0
    assert gateway.submit_cost == 19


def test_a_pool_that_cannot_pay_is_402(client: httpx.Client, gateway: Gateway) -> None:
    gateway.set_credits(7)
    answer = submit(client)
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "insufficient_credits"
    assert gateway.credits == 7
    gateway.allow_negative = True
    assert submit(client).json()["data"]["remaining_credits"] == -1
    assert gateway.allow_negative is True


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"[" * 100_000, "body"),
        (b'{"credits": -1}', "credits"),
        (b'{"credits": 1.5}', "credits"),
        (b'{"credits": true}', "credits"),
        (b'{"credits": 1e999}', "credits"),
        (b'{"model": 3}', "model"),
        (b'{"simulate": "maybe"}', "simulate"),
    ],
)
def test_a_submit_that_makes_no_sense_is_400(client: httpx.Client, gateway: Gateway, body: bytes, field: str) -> None:
    answer = client.post(GENERATE, content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("invalid_request", field)
    assert error["message"].startswith(field)
    assert gateway.credits == 120


def test_a_task_completes(client: httpx.Client, gateway: Gateway) -> None:
    gateway.task_seconds = 30
    assert gateway.task_seconds == 30
    pending = submit(client).json()["data"]["task_id"]
    gateway.task_seconds = 0
    done = submit(client).json()["data"]["task_id"]
    data = client.get(f"/api/v1/images/{done}").json()["data"]
    assert data["status"] == "completed"
    assert data["task_id"] == done
    assert (data["credits_used"], data["credits_refunded"]) == (8, 0)
    assert data["image_url"] == data["output"]["resultUrls"][0]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for name in ("created_at", "updated_at", "completed_at"):
        assert re.fullmatch(stamp, data[name])
    data = client.get(f"/api/v1/images/{pending}").json()["data"]
    assert (data["status"], data["completed_at"], data["output"]) == ("pending", None, None)
    assert [task["status"] for task in gateway.tasks] == ["pending", "completed"]


def test_a_failed_task_is_refunded(client: httpx.Client, gateway: Gateway) -> None:
    task_id = submit(client, simulate="failed").json()["data"]["task_id"]
    data = client.get(f"/api/v1/images/{task_id}").json()["data"]
    assert (data["status"], data["credits_refunded"]) == ("failed", 8)
    gateway.fail_next_tasks(1)
    submit(client)
    assert gateway.credits == 120
    submit(client)
    assert gateway.credits == 112


def test_a_submit_may_say_how_it_ends(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fail_next_tasks(1)
    for outcome in ("completed", "failed", "pending"):
        submit(client, simulate=outcome)
    assert [task["status"] for task in gateway.tasks] == ["completed", "failed", "pending"]
    assert gateway.credits == 104
    submit(client)  # the first that leaves it open
    assert gateway.tasks[3]["status"] == "failed"


def test_a_refund_lands_after_a_delay(client: httpx.Client, gateway: Gateway) -> None:
    gateway.refund_delay = 0.2
    submit(client, simulate="failed")
    assert client.get(BALANCES).json()["data"]["credits"] == 112
    deadline = time.monotonic() + 5
    while gateway.credits != 120 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.get(BALANCES).json()["data"]["credits"] == 120
    assert gateway.refund_delay == 0.2


def test_32_threads_cannot_overspend(client: httpx.Client, gateway: Gateway) -> None:
    gateway.set_credits(100)
    start = threading.Barrier(32)
    answers: list[httpx.Response] = []

    def spend() -> None:
        start.wait()
        answers.extend(submit(client, credits=3) for _ in range(2))

    threads = [threading.Thread(target=spend) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    paid = [answer.json()["data"] for answer in answers if answer.status_code == 200]
    assert len(answers) == 64
    assert len(paid) == 33
    assert sorted(data["remaining_credits"] for data in paid) == list(range(1, 100, 3))
    assert {answer.status_code for answer in answers} == {200, 402}
    assert gateway.credits == 1


def test_requests_are_counted_by_path(client: httpx.Client, gateway: Gateway) -> None:
    for _ in range(3):
        client.get(BALANCES)
    for _ in range(2):
        task_id = submit(client).json()["data"]["task_id"]
        client.get(f"/api/v1/images/{task_id}")
    client.get(STATE)
    assert gateway.requests == {BALANCES: 3, GENERATE: 2, TASK: 2}
    assert gateway.balance_reads == 3
