"""`CreditGateOperator`: what each `on_short` does to the gate, to the tasks behind it and to the DAG run."""

from __future__ import annotations

import pytest


def test_opens_when_there_is_enough(airflow, gateway, holds) -> None:
    result = airflow.run("gate_fail", budget=100)
    assert result.state == "success"
    assert result.state_of("behind") == "success"
    assert result.xcom("return_value", "gate") == {
        "enough": True,
        "reason": None,
        "budget": 100,
        "balance": 100,
        "held_by_others": 0,
        "headroom": 100,
        "shortfall": 0,
        "unit": "credits",
    }
    assert holds() == []


def test_fails_without_retries(airflow, gateway, events) -> None:
    result = airflow.run("gate_fail", budget=101)
    assert result.state_of("gate") == "failed"
    assert result.tries_of("gate") == 1
    assert result.state_of("behind") == "upstream_failed"
    assert result.state_of("anyway") == "success"
    (refused,) = events
    assert refused["event"] == "refused"
    assert refused["shortfall"] == 1
    assert refused["job"] == "gate_fail.gate"
    assert refused["labels"]["dag_id"] == "gate_fail"
    assert refused["level"] == "error"
    assert result.xcom("return_value", "gate")["shortfall"] == 1


def test_skips_itself_and_by_the_trigger_rules_what_is_behind(airflow, gateway, events) -> None:
    result = airflow.run("gate_skip", budget=101)
    assert [(event["event"], event["level"]) for event in events] == [("refused", "info")]
    answer = result.xcom("return_value", "gate")
    assert (answer["enough"], answer["headroom"]) == (False, 100)
    assert "101 credits" in answer["reason"]
    assert result.state == "success"
    assert [result.state_of(task) for task in ("gate", "behind", "anyway")] == ["skipped", "skipped", "success"]


def test_short_circuits_all_that_is_behind(airflow, gateway) -> None:
    result = airflow.run("gate_short_circuit", budget=101)
    assert result.state == "success"
    assert [result.state_of(task) for task in ("gate", "behind", "anyway")] == ["success", "skipped", "skipped"]
    opened = airflow.run("gate_short_circuit", budget=100)
    assert [opened.state_of(task) for task in ("gate", "behind", "anyway")] == ["success"] * 3


def test_retries_and_passes_after_a_top_up(airflow, gateway) -> None:
    gateway.schedule(top_up=50, at_reading=2)
    result = airflow.run("gate_retry", budget=101)
    assert result.state_of("gate") == "success"
    assert result.tries_of("gate") == 2
    assert result.state_of("behind") == "success"


def test_retries_until_the_tries_are_used_up(airflow, gateway) -> None:
    result = airflow.run("gate_retry", budget=101)
    assert result.state_of("gate") == "failed"
    assert result.tries_of("gate") == 2


@pytest.mark.parametrize("dag_id", ["gate_reschedule", "gate_deferred"])
def test_waits_without_using_up_a_try(airflow, gateway, events, dag_id: str) -> None:
    gateway.schedule(top_up=50, at_reading=3)
    result = airflow.run(dag_id, budget=101)
    assert result.state_of("gate") == "success"
    assert result.tries_of("gate") == 1
    assert result.state_of("behind") == "success"
    assert result.xcom("return_value", "gate")["headroom"] == 150
    assert {event["event"] for event in events} == {"waiting"}


@pytest.mark.parametrize("dag_id", ["gate_gives_up", "gate_deferred_gives_up"])
def test_gives_up_when_the_time_is_up_with_the_reason_and_the_answer(airflow, gateway, dag_id: str, caplog) -> None:
    result = airflow.run(dag_id, budget=101)
    assert result.state_of("gate") == "failed"
    assert result.tries_of("gate") == 1
    assert result.xcom("return_value", "gate")["shortfall"] == 1
    assert "in vain" in caplog.text or airflow.version >= (3, 0)


def test_warns_and_opens(airflow, gateway, events) -> None:
    result = airflow.run("gate_warn", budget=101)
    assert result.state == "success"
    assert result.xcom("return_value", "gate")["enough"] is False
    assert [event["event"] for event in events] == ["short"]


def test_counts_what_others_hold(airflow, gateway) -> None:
    from creditguard import guard
    from creditguard.airflow import ApiMallHook

    with guard("other", budget=30, source=ApiMallHook().get_conn()):
        result = airflow.run("gate_skip", budget=71)
    assert result.state_of("gate") == "skipped"
    assert airflow.run("gate_skip", budget=71).state_of("gate") == "success"


def test_an_unreachable_gateway_fails_it_with_retries(airflow, gateway) -> None:
    gateway.fault(status=404)
    result = airflow.run("gate_skip", budget=1)
    assert result.state_of("gate") == "failed"
    assert result.tries_of("gate") == 2


def test_a_rejected_key_fails_it_without(airflow, gateway) -> None:
    gateway.fault(status=401)
    result = airflow.run("gate_retry", budget=1)
    assert result.state_of("gate") == "failed"
    assert result.tries_of("gate") == 1


def test_a_word_that_is_none_is_refused_when_the_dag_is_parsed() -> None:
    from creditguard.airflow import CreditGateOperator

    with pytest.raises(ValueError, match="on_short must be one of fail, skip"):
        CreditGateOperator(task_id="gate", budget=1, on_short="abort")
