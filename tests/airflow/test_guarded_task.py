"""`@task.credit_guard`: templated, mapped, async; its report, its outcomes."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest

from creditguard import current_run


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


def test_default_args_and_partial_give_the_guards_options(airflow, gateway, events) -> None:
    result = airflow.run("by_default_args")
    assert result.state_of("enrich") == "skipped"
    assert result.xcom("credit_report", "enrich")["keep"] == 30
    assert [result.state_of("gates", index) for index in (0, 1)] == ["success", "skipped"]
    answers = result.xcoms("return_value", "gates")
    assert [answers[index]["headroom"] for index in (0, 1)] == [70, 70]
    assert {event["labels"].get("team") for event in events if event["labels"]["task_id"] == "gates"} == {"ml"}


def test_the_credits_go_with_the_events_of_the_tasks_assets(airflow, gateway) -> None:
    if airflow.version < (3, 0):
        airflow.dag("decorated_with_assets").sync_to_db()  # as the scheduler does, or it has no dataset to tell of
    result = airflow.run("decorated_with_assets")
    assert result.state == "success"
    table = "asset_event" if airflow.version >= (3, 0) else "dataset_event"
    with airflow.database() as rows:
        (extra,) = rows.execute(
            f"select extra from {table} where source_dag_id = 'decorated_with_assets' and source_run_id = ?",
            (result.run_id,),
        ).fetchone()
    report = result.xcom("credit_report", "enrich")
    spent = {"job": "enrich", "unit": "credits", "budget": 10, "credits_consumed": 3, "basis": "recorded"}
    assert json.loads(extra) == {"rows": 3, "creditguard": {"run_id": report["run_id"], **spent}}


def test_the_button_leads_to_the_report(airflow, gateway) -> None:
    from urllib.parse import parse_qs, urlsplit

    from creditguard.airflow.links import CreditReportLink

    result = airflow.run("decorated", budget=80)
    assert result.xcom("credit_report", "enrich")["sentence"].startswith("enrich: consumed 3 of 80 credits")
    key = SimpleNamespace(dag_id="decorated", run_id=result.run_id, task_id="enrich", map_index=-1)
    link = urlsplit(CreditReportLink().get_link(None, ti_key=key))
    query = {name: values[0] for name, values in parse_qs(link.query).items()}
    assert (query["task_id"], query["map_index"]) == ("enrich", "-1")
    if airflow.version >= (3, 0):
        assert link.path == "/creditguard/report"
        assert (query["dag_id"], query["run_id"]) == ("decorated", result.run_id)
        assert parse_qs(urlsplit(result.xcom("_link_CreditReportLink", "enrich")).query)["run_id"] == [result.run_id]
    else:
        assert link.path == "/dags/decorated/grid"
        assert (query["dag_run_id"], query["tab"]) == (result.run_id, "xcom")
    task = airflow.dag("decorated").get_task("enrich")
    assert [button.name for button in task.operator_extra_links] == ["Credit report"]


def test_the_credits_are_a_facet_for_openlineage(airflow, gateway) -> None:
    pytest.importorskip("airflow.providers.openlineage")
    from airflow.providers.openlineage.extractors.manager import ExtractorManager
    from airflow.utils.state import TaskInstanceState

    from creditguard.airflow.decorators import CreditGuardOperator

    def enrich() -> None:
        current_run().record(2)

    operator = CreditGuardOperator(task_id="enrich", python_callable=enrich, op_args=(), op_kwargs={}, budget=5)
    pushed: dict[str, object] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    operator._run({"ti": ti})
    run = SimpleNamespace(run_id="run")
    found = ExtractorManager().extract_metadata(run, operator, TaskInstanceState.SUCCESS, task_instance=ti)
    facet = found.run_facets["creditguard"]
    assert (facet.job, facet.budget, facet.credits_consumed, facet.basis) == ("enrich", 5, 2, "recorded")
    assert facet.guard_run_id == pushed["credit_report"]["run_id"]


def test_the_example(airflow, gateway) -> None:
    result = airflow.run("nightly_enrich")
    assert result.state == "success"
    assert result.xcom("return_value", "total") == 15
    reports = result.xcoms("credit_report", "enrich").values()
    assert [report["budget"] for report in reports] == [10, 10, 10]
    assert [report["credits_consumed"] for report in reports] == [5, 5, 5]


def test_the_example_whose_batches_take_turns(airflow, gateway) -> None:
    result = airflow.run("credit_queue")
    assert result.state == "success"
    reports = result.xcoms("credit_report", "draw").values()
    assert [report["credits_consumed"] for report in reports] == [1, 1, 1, 1]
    gateway.set_credits(44)
    assert airflow.run("credit_queue").state_of("one_fits") == "skipped"
