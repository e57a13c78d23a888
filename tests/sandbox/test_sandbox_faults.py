"""Every fault, as a client sees it."""

from __future__ import annotations

import base64
import gzip
import json
import math
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from creditguard.sandbox import BadField, Gateway
from creditguard.sandbox.paths import BALANCES, GENERATE, TASK

Connect = Callable[[], socket.socket]


def request(gateway: Gateway) -> bytes:
    head = f"GET {BALANCES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n\r\n"
    return head.encode()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "unauthorized"),
        (402, "insufficient_credits"),
        (403, "forbidden"),
        (404, "not_found"),
        (429, "rate_limited"),
        (500, "internal_error"),
        (503, "internal_error"),
        (599, "internal_error"),
    ],
)
def test_a_status_has_the_documented_error_body(client: httpx.Client, gateway: Gateway, status: int, code: str) -> None:
    gateway.fault(status=status)
    answer = client.get(BALANCES)
    assert answer.status_code == status
    body = answer.json()
    assert body["success"] is False
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert body["request_id"].startswith("req_")
    assert gateway.balance_reads == 0
    assert gateway.requests[BALANCES] == 1


def test_code_and_message_can_be_chosen(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(status=403, code="wrong_host", message="use the gateway host")
    expected = {"code": "wrong_host", "message": "use the gateway host"}
    assert client.get(BALANCES).json()["error"] == expected


def test_a_redirect(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(status=302, location="https://elsewhere.invalid/")
    answer = client.get(BALANCES)
    assert answer.status_code == 302
    assert answer.headers["location"] == "https://elsewhere.invalid/"


def test_a_good_status_keeps_the_data(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(status=203)
    answer = client.get(BALANCES)
    assert (answer.status_code, answer.json()["data"]["credits"]) == (203, 120)
    assert gateway.balance_reads == 1


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(client: httpx.Client, gateway: Gateway, status: int) -> None:
    gateway.fault(status=status, times=1)
    answer = client.get(BALANCES)
    assert (answer.status_code, answer.content) == (status, b"")
    assert client.get(BALANCES).status_code == 200


def test_failure_under_200(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(success=False, code="maintenance")
    answer = client.get(BALANCES)
    assert answer.status_code == 200
    assert answer.json()["success"] is False
    assert answer.json()["error"]["code"] == "maintenance"


def test_data_under_500(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(success=True, status=500)
    answer = client.get(BALANCES)
    assert answer.status_code == 500
    assert answer.json()["data"]["credits"] == 120


@pytest.mark.parametrize("data", [None, [], "x", {}, {"credits": 120}, {"api_credits": "12"}])
def test_other_data(client: httpx.Client, gateway: Gateway, data: object) -> None:
    gateway.fault(data=data)
    body = client.get(BALANCES).json()
    assert body["success"] is True
    assert body["data"] == data


@pytest.mark.parametrize("value", [None, True, 1.5, "12", [], {}, -5, 10**30])
def test_another_api_credits(client: httpx.Client, gateway: Gateway, value: object) -> None:
    gateway.fault(api_credits=value)
    shown = client.get(BALANCES).json()["data"]["api_credits"]
    assert (shown, type(shown)) == (value, type(value))


def test_nan_is_sent_as_it_is(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(api_credits=math.nan)
    assert '"api_credits":NaN' in client.get(BALANCES).text


@pytest.mark.parametrize("body", ["<h1>Bad gateway</h1>", '{"success": tr', "", b"\xff\xfe\x00"])
def test_any_body(client: httpx.Client, gateway: Gateway, body: str | bytes) -> None:
    gateway.fault(status=502, body=body, content_type="text/html")
    answer = client.get(BALANCES)
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "text/html"
    assert answer.content == (body.encode() if isinstance(body, str) else body)


def test_half_a_character(client: httpx.Client, gateway: Gateway) -> None:
    sent = {"fault": {"status": 500, "body": "\ud800", "times": 1}}
    control = client.post("/_sandbox/control", content=json.dumps(sent))
    assert control.status_code == 200
    assert client.get(BALANCES).content == b"\xed\xa0\x80"
    gateway.fault(status=500, message="\ud800")
    assert client.get(BALANCES).json()["error"]["message"] == "\ud800"


def test_a_body_in_base64(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(body_base64=base64.b64encode(b"\x00\xff").decode())
    answer = client.get(BALANCES)
    assert (answer.status_code, answer.content) == (200, b"\x00\xff")


@pytest.mark.parametrize("value", ["3", "0.5", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"])
def test_more_headers(client: httpx.Client, gateway: Gateway, value: str) -> None:
    gateway.fault(status=429, headers={"Retry-After": value, "X-Odd": "1"})
    answer = client.get(BALANCES)
    assert (answer.headers["retry-after"], answer.headers["x-odd"]) == (value, "1")


def test_a_header_is_replaced_not_doubled(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(headers={"content-type": "text/plain"})
    assert client.get(BALANCES).headers.get_list("content-type") == ["text/plain"]


def test_an_answer_cut_short(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(headers={"Content-Length": "9999"}, times=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        client.get(BALANCES)
    assert client.get(BALANCES).status_code == 200


def test_a_big_body_is_still_json(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(pad=1024 * 1024)
    answer = client.get(BALANCES)
    assert len(answer.content) > 1024 * 1024
    assert answer.json()["data"]["credits"] == 120


def test_a_bomb(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(pad=8 * 1024 * 1024, gzip=True)
    with client.stream("GET", BALANCES) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        raw = b"".join(answer.iter_raw())
    assert len(raw) < 16 * 1024
    plain = gzip.decompress(raw)
    assert len(plain) > 8 * 1024 * 1024
    assert json.loads(plain)["data"]["credits"] == 120


def test_a_body_that_is_not_the_gzip_it_claims(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(headers={"Content-Encoding": "gzip"}, body="plain")
    with pytest.raises(httpx.DecodingError):
        client.get(BALANCES)


def test_a_delay(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(delay=0.2, times=1)
    started = time.monotonic()
    assert client.get(BALANCES).status_code == 200
    assert time.monotonic() - started >= 0.2
    gateway.fault(delay=30, times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.get(BALANCES, timeout=0.05)
    assert client.get(BALANCES).status_code == 200


def test_a_delayed_balance_is_read_after_the_delay(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(delay=0.2)
    gateway.schedule(drain=20, after=0.05)
    assert client.get(BALANCES).json()["data"]["credits"] == 100


def test_a_dripping_body(gateway: Gateway, connect: Connect) -> None:
    gateway.fault(drip=0.02, body="abcdef", times=1)
    conn = connect()
    started = time.monotonic()
    conn.sendall(request(gateway))
    head = conn.recv(65536)
    assert head.endswith(b"\r\n\r\n")
    chunks: list[bytes] = []
    while len(b"".join(chunks)) < 6:
        chunks.append(conn.recv(65536))
    assert b"".join(chunks) == b"abcdef"
    assert len(chunks) > 1
    assert time.monotonic() - started >= 0.12
    conn.sendall(request(gateway))  # the connection is still good
    assert conn.recv(65536).startswith(b"HTTP/1.1 200")


def test_dripping_headers(gateway: Gateway, connect: Connect) -> None:
    gateway.fault(drip=0.02, drip_headers=True)
    conn = connect()
    conn.sendall(request(gateway))
    assert b"HTTP/1.1".startswith(conn.recv(4))  # and not the whole head


def test_a_reset(gateway: Gateway, connect: Connect, client: httpx.Client) -> None:
    gateway.fault(reset=True, times=1)
    conn = connect()
    conn.sendall(request(gateway))
    with pytest.raises(ConnectionResetError):
        conn.recv(1)
    assert client.get(BALANCES).status_code == 200


def test_closed_without_an_answer(gateway: Gateway, connect: Connect, client: httpx.Client) -> None:
    gateway.fault(close=True, times=1)
    conn = connect()
    conn.sendall(request(gateway))
    assert conn.recv(1) == b""
    assert client.get(BALANCES).status_code == 200


def test_faults_are_used_up_in_order(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(status=429, times=2)
    gateway.fault(status=500, times=1)
    statuses = [client.get(BALANCES).status_code for _ in range(5)]
    assert statuses == [429, 429, 500, 200, 200]


def test_a_fault_may_let_some_pass_first(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(status=500, skip=1, times=1)
    assert [client.get(BALANCES).status_code for _ in range(3)] == [200, 500, 200]


def test_a_fault_without_times_stays_until_cleared(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(status=500)
    assert {client.get(BALANCES).status_code for _ in range(5)} == {500}
    gateway.clear_faults()
    assert client.get(BALANCES).status_code == 200


@pytest.mark.parametrize(
    ("path", "hit"),
    [
        (None, [BALANCES]),
        (GENERATE, [GENERATE]),
        (TASK, ["/api/v1/images/x"]),
        ("/api/v1/images/*", [GENERATE, "/api/v1/images/x"]),
        ("*", [BALANCES, GENERATE, "/api/v1/images/x"]),
    ],
)
def test_a_fault_hits_its_path(client: httpx.Client, gateway: Gateway, path: str | None, hit: list[str]) -> None:
    gateway.control(fault={"status": 599} if path is None else {"status": 599, "path": path})
    asked = {
        BALANCES: client.get(BALANCES),
        GENERATE: client.post(GENERATE, json={}),
        "/api/v1/images/x": client.get("/api/v1/images/x"),
    }
    assert [where for where, answer in asked.items() if answer.status_code == 599] == hit


def test_a_submit_answered_by_a_fault_costs_nothing(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(path=GENERATE, status=500, times=1)
    client.post(GENERATE, json={})
    assert gateway.credits == 120
    gateway.fault(path=GENERATE, delay=0.01)
    client.post(GENERATE, json={})
    assert gateway.credits == 112


def test_control_is_spared(client: httpx.Client, gateway: Gateway) -> None:
    gateway.fault(path="*", reset=True)
    assert client.post("/_sandbox/control", json={"clear_faults": True}).status_code == 200
    assert client.get(BALANCES).status_code == 200


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "fault"),
        ({"times": 1, "path": "*"}, "fault"),
        ({"stauts": 500}, "fault.stauts"),
        ({"status": 99}, "fault.status"),
        ({"status": "500"}, "fault.status"),
        ({"status": 500, "times": 0}, "fault.times"),
        ({"status": 500, "skip": -1}, "fault.skip"),
        ({"delay": -1}, "fault.delay"),
        ({"delay": math.nan}, "fault.delay"),
        ({"delay": math.inf}, "fault.delay"),
        ({"delay": True}, "fault.delay"),
        ({"drip_headers": True}, "fault.drip_headers"),
        ({"reset": 1}, "fault.reset"),
        ({"reset": True, "status": 500}, "fault.reset"),
        ({"close": True, "body": "x"}, "fault.close"),
        ({"body": 5}, "fault.body"),
        ({"body_base64": "?"}, "fault.body_base64"),
        ({"data": {1, 2}}, "fault.data"),
        ({"headers": "x"}, "fault.headers"),
        ({"headers": {"A": 1}}, "fault.headers.A"),
        ({"headers": {"A": "x\r\nB: y"}}, "fault.headers.A"),
        ({"headers": {"A:": "x"}}, "fault.headers"),
        ({"location": "é"}, "fault.location"),
        ({"pad": 10**12}, "fault.pad"),
        (["status"], "fault"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(gateway: Gateway, spec: Any, field: str) -> None:
    with pytest.raises(BadField) as caught:
        gateway.control(clear_faults=True, fault=(spec if isinstance(spec, dict) else [spec]))
    assert caught.value.field == field
    assert gateway.state()["faults"] == []
