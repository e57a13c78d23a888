"""`CreditBalanceSensor`: rescheduled, poking, and deferred to the triggerer."""

from __future__ import annotations

import asyncio

import pytest


@pytest.mark.parametrize("dag_id", ["sensor_rescheduled", "sensor_poking", "sensor_deferred"])
def test_is_released_by_a_top_up(airflow, gateway, events, dag_id: str) -> None:
    gateway.schedule(top_up=50, at_reading=3)
    result = airflow.run(dag_id, budget=120)
    assert result.state == "success"
    assert result.state_of("behind") == "success"
    assert result.tries_of("wait") == 1
    assert result.xcom("return_value", "wait")["headroom"] == 150
    assert {event["event"] for event in events} == {"waiting"}
    assert {event["labels"]["task_id"] for event in events} == {"wait"}


@pytest.mark.parametrize("dag_id", ["sensor_rescheduled", "sensor_deferred"])
def test_passes_at_once_when_there_is_enough(airflow, gateway, dag_id: str) -> None:
    before = gateway.balance_reads
    assert airflow.run(dag_id, budget=100).state == "success"
    assert gateway.balance_reads == before + 1


@pytest.mark.parametrize("dag_id", ["sensor_rescheduled", "sensor_deferred"])
def test_waits_for_a_gateway_that_is_away(airflow, gateway, dag_id: str) -> None:
    gateway.fault(status=404, times=2)
    assert airflow.run(dag_id, budget=100).state == "success"


@pytest.mark.parametrize("dag_id", ["sensor_rescheduled", "sensor_deferred"])
def test_fails_when_the_key_is_rejected(airflow, gateway, dag_id: str) -> None:
    if dag_id == "sensor_deferred":  # short when it starts, rejected later
        gateway.set_credits(1)
        gateway.fault(status=401, skip=1)
    else:
        gateway.fault(status=401)
    result = airflow.run(dag_id, budget=100)
    assert result.state_of("wait") == "failed"
    assert result.tries_of("wait") == 1


def test_gives_up_softly(airflow, gateway) -> None:
    result = airflow.run("sensor_gives_up", budget=101)
    assert result.state_of("wait") == "skipped"


def test_the_trigger_carries_names_and_no_key(airflow, gateway) -> None:
    from creditguard.airflow import CreditBalanceTrigger

    asked = {"name": "a", "budget": "50", "conn_id": "apimall_default", "keep": None, "account": None, "labels": {}}
    path, arguments = CreditBalanceTrigger(**asked, poke_interval=0.0).serialize()
    assert path == "creditguard.airflow.triggers.CreditBalanceTrigger"
    assert arguments == {**asked, "poke_interval": 0.0, "ends": None}

    async def first():
        return await anext(CreditBalanceTrigger(**arguments).run())

    assert asyncio.run(first()).payload["answer"]["headroom"] == 100


def test_a_triggerer_that_lacks_a_thread_fails_the_try_and_not_the_task(airflow, gateway, monkeypatch) -> None:
    from creditguard.airflow import CreditBalanceTrigger
    from creditguard.engine.service import Service

    def none_left(_) -> None:
        raise RuntimeError("can't start new thread")

    async def first():
        trigger = CreditBalanceTrigger(name="a", budget="50", conn_id="apimall_default", poke_interval=0.0)
        return await anext(trigger.run())

    monkeypatch.setattr(Service, "start", none_left)
    payload = asyncio.run(first()).payload
    assert (payload["status"], payload["final"]) == ("failed", False)
    assert "can't start new thread" in payload["reason"]
