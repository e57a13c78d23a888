"""`guard` in the code of an ordinary task."""

from __future__ import annotations

import pickle
from decimal import Decimal

import pytest


def test_with_block_has_the_tasks_labels(airflow, env_gateway, events, holds) -> None:
    result = airflow.run("with_block", budget=50)
    report = result.xcom("return_value", "enrich")
    assert report["job"] == "with_block.enrich"
    assert report["credits_recorded"] == 5
    assert report["labels"] == {
        "team": "ml",
        "dag_id": "with_block",
        "task_id": "enrich",
        "run_id": result.run_id,
        "try_number": 1,
        "map_index": -1,
    }
    assert [event["event"] for event in events] == ["admitted", "finished"]
    assert holds() == []


def test_with_block_fails_without_retries_when_short(airflow, env_gateway, events) -> None:
    result = airflow.run("with_block", budget=101)
    assert result.state_of("enrich") == "failed"
    assert result.tries_of("enrich") == 1
    assert [event["event"] for event in events] == ["refused"]


def test_an_unreachable_gateway_is_retried(airflow, env_gateway) -> None:
    env_gateway.fault(status=404, times=1)
    result = airflow.run("with_block", budget=50)
    assert result.state == "success"
    assert result.tries_of("enrich") == 2


def test_a_connection_in_place_of_the_environment(airflow, gateway) -> None:
    report = airflow.run("with_connection", budget=50).xcom("return_value", "enrich")
    assert report["job"] == "named"
    assert report["balance_before"] == 100
    assert airflow.run("with_connection", budget=101).tries_of("enrich") == 1


def test_task_over_guard(airflow, gateway, events) -> None:
    result = airflow.run("task_over_guard")
    assert result.state == "success"
    assert result.xcom("return_value", "one") == "4 rows in one"
    assert result.xcoms("return_value", "many") == {0: "1 rows in many", 1: "2 rows in many"}
    finished = [event for event in events if event["event"] == "finished"]
    assert {(event["labels"]["task_id"], event["labels"]["map_index"]): event["budget"] for event in finished} == {
        ("one", -1): 40,
        ("many", 0): 10,
        ("many", 1): 20,
    }


def test_plain_guard(airflow, env_gateway, events) -> None:
    result = airflow.run("plain_guard")
    assert result.state == "success"
    assert events[-1]["labels"]["task_id"] == "enrich"
    env_gateway.set_credits(1)
    short = airflow.run("plain_guard")
    assert short.state_of("enrich") == "failed"
    assert short.tries_of("enrich") == 1


def test_outside_of_a_task_it_is_the_guard_of_creditguard(env_gateway) -> None:
    import creditguard
    from creditguard.airflow import guard
    from creditguard.airflow.errors import NotEnoughCredits

    with guard("here", budget=1) as run:
        pass
    assert run.report is not None
    assert run.report.labels == {}
    with pytest.raises(creditguard.InsufficientCredits) as refused, guard("here", budget=101):
        pass
    assert not isinstance(refused.value, NotEnoughCredits)


def test_guard_over_task_is_refused(airflow) -> None:
    """Whatever of Airflow's it is: it would guard the making of the task, at every parse."""
    import creditguard
    import creditguard.airflow

    decorated = airflow.dag("plain_guard").get_task("enrich")
    from airflow.providers.common.compat.sdk import task

    def enrich() -> None: ...

    tasks_objects = (
        task(enrich),
        task.credit_guard(budget=1)(enrich),
        task.short_circuit(enrich),
        task.sensor(enrich),
        task(enrich).expand,
        task(enrich).partial,
        decorated,
    )
    for tasks_object in tasks_objects:
        for guard in (creditguard.guard, creditguard.airflow.guard):
            with pytest.raises(TypeError, match="the order is @task|guard wraps functions"):
                guard(budget=1)(tasks_object)


class Batch(dict):
    """A type that only this module knows."""


def test_multiple_outputs_are_inferred_as_for_any_task() -> None:
    from airflow.providers.common.compat.sdk import task

    from creditguard.airflow import guard

    @task
    @guard(budget=1)
    def enrich() -> Batch: ...

    assert enrich.multiple_outputs is True


def test_errors_survive_pickling_and_keep_both_families() -> None:
    from airflow.providers.common.compat.sdk import AirflowFailException

    from creditguard import AuthenticationError, BudgetExceeded, InsufficientCredits, SourceError
    from creditguard.airflow.errors import final

    for error in (
        InsufficientCredits(Decimal(2), Decimal(1), Decimal(1), job="enrich"),
        AuthenticationError("401", "req-1", 401),
        BudgetExceeded(Decimal(2), Decimal(1)),
    ):
        last = pickle.loads(pickle.dumps(final(error)))
        assert isinstance(last, type(error))
        assert isinstance(last, AirflowFailException)
        assert (str(last), last.args) == (str(error), error.args)
    network = SourceError("the gateway is away")
    assert final(network) is network
