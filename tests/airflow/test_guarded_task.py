"""`@task.credit_guard`: templated, mapped, async; its report, its outcomes."""

from __future__ import annotations

import contextlib

import pytest


def test_runs_and_reports(airflow, gateway, events, holds) -> None:
    result = airflow.run("decorated", budget=80)
    assert result.state == "success"
    assert result.xcom("return_value", "enrich") == "3 rows, try 1"
    report = result.xcom("credit_report", "enrich")
    assert report["budget"] == 80
    assert report["job"] == "enrich"
    assert report["credits_recorded"] == 3
    assert report["basis"] == "recorded"
    assert report["outcome"] == "succeeded"
    assert report["labels"] == {
        "dag_id": "decorated",
        "task_id": "enrich",
        "run_id": result.run_id,
        "try_number": 1,
        "map_index": -1,
    }
    assert [event["event"] for event in events] == ["admitted", "finished"]
    assert events[1]["labels"] == report["labels"]
    assert holds() == []


def test_the_jobs_own_error_comes_out_and_is_reported(airflow, gateway, holds) -> None:
    result = airflow.run("decorated_fails")
    assert result.state_of("enrich") == "failed"
    assert result.xcom("credit_report", "enrich")["outcome"] == "failed"
    assert holds() == []


def test_a_timeout_is_reported(airflow, gateway, events, holds) -> None:
    from airflow.providers.common.compat.sdk import AirflowTaskTimeout

    with contextlib.suppress(AirflowTaskTimeout):  # which comes out of dag.test() on Airflow 2
        assert airflow.run("decorated_too_slow").state_of("enrich") == "failed"
    assert [(event["event"], event.get("outcome")) for event in events] == [("admitted", None), ("finished", "failed")]
    assert holds() == []


def test_a_run_that_is_stopped_for_what_it_spends_is_not_retried(airflow, gateway, events) -> None:
    result = airflow.run("decorated_stopped")
    assert result.state_of("enrich") == "failed"
    assert result.tries_of("enrich") == 1
    report = result.xcom("credit_report", "enrich")
    assert (report["credits_recorded"], report["over_budget"]) == (3, True)
    assert events[-1]["event"] == "finished"


def test_budget_by_the_functions_arguments(airflow, gateway) -> None:
    report = airflow.run("decorated_by_arguments").xcom("credit_report", "enrich")
    assert report["budget"] == 14
    assert report["keep"] == 85
    assert report["job"] == "by-rows"
    assert report["labels"]["team"] == "ml"


def test_each_mapped_task_has_a_report_of_its_own(airflow, gateway) -> None:
    result = airflow.run("mapped")
    assert result.state == "success"
    reports = result.xcoms("credit_report", "enrich")
    assert {index: report["credits_consumed"] for index, report in reports.items()} == {0: 1, 1: 2, 2: 3}
    assert {index: report["budget"] for index, report in reports.items()} == {0: 10, 1: 20, 2: 30}
    assert {index: report["labels"]["map_index"] for index, report in reports.items()} == {0: 0, 1: 1, 2: 2}
    assert len({report["run_id"] for report in reports.values()}) == 3


def test_short_fails_without_retries_and_reports(airflow, gateway, events) -> None:
    result = airflow.run("decorated_fail", budget=101)
    assert result.state_of("enrich") == "failed"
    assert result.tries_of("enrich") == 1
    assert result.state_of("behind") == "upstream_failed"
    assert result.xcom("credit_report", "enrich")["outcome"] == "refused"
    assert [event["event"] for event in events] == ["refused"]


def test_short_skips_if_asked_to(airflow, gateway, events) -> None:
    result = airflow.run("decorated_skip", budget=101)
    assert [(event["event"], event["level"]) for event in events] == [("refused", "info")]
    assert result.state == "success"
    assert [result.state_of(task) for task in ("enrich", "behind")] == ["skipped", "skipped"]


def test_short_retries_if_asked_to(airflow, gateway) -> None:
    gateway.schedule(top_up=50, at_reading=2)
    result = airflow.run("decorated_retry", budget=101)
    assert result.state == "success"
    assert result.tries_of("enrich") == 2
    assert result.xcom("credit_report", "enrich")["outcome"] == "succeeded"
    assert result.xcom("credit_report", "enrich")["labels"]["try_number"] == 2


@pytest.mark.parametrize("dag_id", ["decorated_reschedule", "decorated_deferred"])
def test_short_waits_if_asked_to_and_uses_up_no_try(airflow, gateway, events, holds, dag_id: str) -> None:
    gateway.schedule(top_up=50, at_reading=4)
    result = airflow.run(dag_id, budget=101)
    assert result.state == "success"
    assert result.xcom("return_value", "enrich") == "ran"
    assert result.tries_of("enrich") == 1
    assert result.xcom("credit_report", "enrich")["outcome"] == "succeeded"
    assert [event["event"] for event in events if event["event"] != "waiting"] == ["admitted", "finished"]
    assert holds() == []


def test_what_is_wrong_in_the_settings_is_not_retried(airflow, env_gateway, gateway) -> None:
    before = gateway.balance_reads, env_gateway.balance_reads
    result = airflow.run("decorated_without_budget")
    for task in ("enrich", "plain", "nonsense"):
        assert (result.state_of(task), result.tries_of(task)) == ("failed", 1), task
    assert (gateway.balance_reads, env_gateway.balance_reads) == before


def test_what_would_hide_the_functions_own_failure_is_refused() -> None:
    from airflow.providers.common.compat.sdk import task

    with pytest.raises(ValueError, match="soft_fail is for sensors"):
        task.credit_guard(budget=1, soft_fail=True)(lambda: None)()


def test_short_warns_if_asked_to(airflow, gateway, events) -> None:
    result = airflow.run("decorated_warn", budget=101)
    assert result.state == "success"
    assert [event["event"] for event in events] == ["short", "finished"]


def test_a_coroutine_function(airflow, gateway, events, holds) -> None:
    if airflow.version < (3, 2):
        pytest.skip("Airflow runs coroutine functions from 3.2 on")
    result = airflow.run("decorated_async", budget=80)
    assert result.xcom("return_value", "enrich") == "awaited"
    assert result.xcom("credit_report", "enrich")["credits_recorded"] == 4
    assert [event["event"] for event in events] == ["admitted", "finished"]
    assert holds() == []
    short = airflow.run("decorated_async", budget=101)
    assert short.state_of("enrich") == "failed"
    assert short.tries_of("enrich") == 1


def test_coroutine_functions_are_refused_before_anything_is_read(airflow, gateway) -> None:
    if airflow.version >= (3, 2):
        pytest.skip("Airflow runs them")
    before = gateway.balance_reads
    assert airflow.run("decorated_async", budget=1).state_of("enrich") == "failed"
    assert gateway.balance_reads == before


def test_the_example(airflow, gateway) -> None:
    result = airflow.run("nightly_enrich")
    assert result.state == "success"
    assert result.xcom("return_value", "total") == 15
    reports = result.xcoms("credit_report", "enrich").values()
    assert [report["budget"] for report in reports] == [10, 10, 10]
    assert [report["credits_consumed"] for report in reports] == [5, 5, 5]
