"""Airflow 3 as it is deployed: API server, scheduler, triggerer, executor and real task logs, on LocalExecutor
(`make test-airflow-standalone`) and on CeleryExecutor with Redis and two workers (`make test-airflow-celery`).

What `dag.test()` cannot show: tasks that run at the same time, that are killed, that wait in the triggerer, and log files.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import httpx
import pytest
from airflow_deployed import CeleryDeployment, Deployment, kill, wait_until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=["LocalExecutor", "CeleryExecutor"])
def executor(request: pytest.FixtureRequest) -> type[Deployment]:
    import airflow

    if airflow.__version__.startswith("2."):
        pytest.skip("for Airflow 3")
    if request.param == "LocalExecutor":
        return Deployment
    if not find_spec("airflow.providers.celery"):
        pytest.skip("without Airflow's provider for Celery")
    if not shutil.which("redis-server"):
        pytest.skip("without redis-server (Debian: apt-get install redis-server)")
    return CeleryDeployment


@pytest.fixture(scope="module")
def pools(executor) -> Iterator[tuple]:
    from creditguard.sandbox import Gateway

    with Gateway(credits=100) as by_connection, Gateway(credits=100) as by_environment:
        yield by_connection, by_environment


@pytest.fixture(scope="module")
def airflow(executor, pools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    by_connection, by_environment = pools
    home = tmp_path_factory.mktemp("airflow")
    connection = {"conn_type": "apimall", "host": by_connection.url, "password": by_connection.key}
    deployment = executor(
        home,
        {
            "AIRFLOW_CONN_APIMALL_DEFAULT": json.dumps(connection),
            "APIMALL_API_KEY": by_environment.key,
            "CREDITGUARD_BASE_URL": by_environment.url,
            "CREDITGUARD_TEST_FOLDER": str(home),
            # A task that comes back within a second or two of its reschedule is failed now and then by Airflow's own scheduler
            # ("finished with state success, but the task instance's state is queued").
            "CREDITGUARD_TEST_POKE": "4",
        },
    )
    try:
        deployment.ready()
        yield deployment
    finally:
        deployment.stop()


def holds(airflow: Deployment) -> list[str]:
    from creditguard.ledgers import open_ledger

    ledger = open_ledger(airflow.ledger)
    try:
        return [live.hold.job for live in ledger.holds()]
    finally:
        ledger.close()


def history(airflow: Deployment, outcome: str) -> list[Any]:
    from creditguard.ledgers import open_ledger

    ledger = open_ledger(airflow.ledger)
    try:
        return [report for report in ledger.history(limit=100) if report["outcome"] == outcome]
    finally:
        ledger.close()


def room_for(budget: int, gateway: Any, airflow: Deployment) -> bool:
    """Whether a run of this process is admitted, on the pool that the connection leads to."""
    from creditguard import InsufficientCredits, guard
    from creditguard.sources.apimall import ApiMall

    try:
        with guard("another", budget=budget, source=ApiMall(gateway.key, gateway.url), ledger=airflow.ledger):
            return True
    except InsufficientCredits:
        return False


def test_nothing_is_read_while_dags_are_parsed(airflow: Deployment, pools) -> None:
    assert [gateway.balance_reads for gateway in pools] == [0, 0]


def test_of_two_mapped_tasks_that_fit_one_by_one_exactly_one_is_admitted(airflow: Deployment) -> None:
    run = airflow.trigger("pair")
    wait_until(lambda: sorted(map(str, run.states().values())) == ["failed", "running"], 120)
    assert holds(airflow) == ["enrich"]
    (airflow.home / "release").touch()
    assert run.ended() == "failed"
    assert sorted(run.states().values()) == ["failed", "success"]
    reports = [run.xcom("credit_report", "enrich", index) for index in (0, 1)]
    assert sorted(report["outcome"] for report in reports) == ["refused", "succeeded"]
    refused = next(report for report in reports if report["outcome"] == "refused")
    assert (refused["held_by_others"], refused["shortfall"]) == (60, 20)
    assert holds(airflow) == []


@pytest.mark.parametrize("dag_id", ["crowd_deferred", "crowd_rescheduled"])
def test_of_four_mapped_tasks_two_fit_and_the_others_wait_their_turn(airflow: Deployment, dag_id: str) -> None:
    run = airflow.trigger(dag_id)
    most, seen = 0, set()

    def over() -> bool:
        nonlocal most
        most = max(most, len(holds(airflow)))
        seen.update(run.states().values())
        return run.is_over()

    wait_until(over, 240)
    assert set(run.states().values()) == {"success"}
    assert ("deferred" if dag_id == "crowd_deferred" else "up_for_reschedule") in seen
    assert [task["try_number"] for task in run.tasks().values()] == [1] * 4
    assert most == 2
    reports = [run.xcom("credit_report", "enrich", index) for index in range(4)]
    assert [report["outcome"] for report in reports] == ["succeeded"] * 4
    waited = [index for index in range(4) if run.events("enrich", index)[0]["event_name"] == "creditguard.waiting"]
    assert len(waited) == 2
    assert holds(airflow) == []


def test_the_first_that_a_person_reads_of_a_refusal_is_its_reason(airflow: Deployment) -> None:
    run = airflow.trigger("decorated_fail", budget=1000)
    assert run.ended() == "failed"
    lines = run.log("enrich")
    (refused,) = run.events("enrich")
    assert refused["event"].startswith("enrich: refused, needs 1000 credits, 100 are free (100 on the account)")
    assert refused["level"] == "error"
    errors = [line for line in lines if line.get("level") in {"error", "critical"}]
    assert errors[0] == refused
    print("\n".join(f"{line.get('level')} {line['event'][:110]}" for line in lines))
    skipped = airflow.trigger("decorated_skip", budget=1000)
    assert skipped.ended() == "success"
    assert [line for line in skipped.log("enrich") if line.get("level") in {"warning", "error", "critical"}] == []


def test_the_first_that_a_person_reads_of_a_setting_that_cannot_be_used_names_it(airflow: Deployment, pools) -> None:
    before = pools[0].balance_reads
    run = airflow.trigger("bad_input", budget="many")
    assert run.ended() == "failed"
    for (task, _), found in run.tasks().items():
        errors = [line for line in run.log(task) if line.get("level") in {"error", "critical"}]
        assert errors[0]["event"] == "budget must be a number of credits such as 500 or 0.25, not 'many'", task
        assert found["try_number"] == 1
    assert pools[0].balance_reads == before


def test_a_task_marked_failed_is_settled(airflow: Deployment) -> None:
    names = ("killed_decorated", "killed_guard", "killed_plain")
    runs = {name: airflow.trigger(name) for name in names}
    wait_until(lambda: len(holds(airflow)) == len(names), 120)
    wait_until(lambda: all(run.states()["enrich", -1] == "running" for run in runs.values()), 60)
    for run in runs.values():
        run.mark_failed("enrich")
    marked = time.monotonic()
    wait_until(lambda: not holds(airflow), 60)
    print(f"holds free after {time.monotonic() - marked:.1f} s")
    for name, run in runs.items():
        assert run.ended() == "failed", name
        assert run.tasks()["enrich", -1]["try_number"] == 1
        wait_until(
            lambda run=run: any(line["event_name"] == "creditguard.finished" for line in run.events("enrich")), 15
        )
        finished = run.events("enrich")[-1]
        assert finished["event_name"] == "creditguard.finished", name
        assert finished["event"].startswith(f"{finished['job']}: cancelled, consumed"), name
        ours = [line for line in run.log("enrich") if "creditguard" in json.dumps(line.get("error_detail", ""))]
        assert ours == [], "a traceback of ours after a kill"
        assert finished["outcome"] == "cancelled"
        assert finished["balance_after"] is not None
        assert finished["labels"]["dag_id"] == name


def test_a_task_that_is_cleared_while_it_runs_is_settled_and_its_next_try_is_admitted(airflow: Deployment) -> None:
    run = airflow.trigger("interrupted")
    wait_until(lambda: holds(airflow) == ["enrich"], 120)
    wait_until(lambda: run.states()["enrich", -1] == "running", 60)
    run.clear("enrich")
    cleared = time.monotonic()
    wait_until(lambda: not holds(airflow), 60)
    print(f"hold free {time.monotonic() - cleared:.1f} s after the task was cleared")
    assert run.ended() == "success"
    first, second = (run.events("enrich", attempt=number) for number in (1, 2))
    assert [event["event_name"] for event in first] == ["creditguard.admitted", "creditguard.finished"]
    assert (first[-1]["outcome"], first[-1]["balance_after"]) == ("cancelled", 100)
    assert (second[-1]["outcome"], second[-1]["labels"]["try_number"]) == ("succeeded", 2)
    assert run.xcom("credit_report", "enrich")["outcome"] == "succeeded"
    assert holds(airflow) == []


def test_what_a_lost_worker_held_is_free_for_others_at_once_and_reported_as_abandoned(
    airflow: Deployment, pools
) -> None:
    """SIGKILL, to the task and to what watches over it."""
    gateway, _ = pools
    run = airflow.trigger("interrupted")
    wait_until(lambda: holds(airflow) == ["enrich"], 120)
    lost = airflow.worker_of(int((airflow.home / f"{run.run_id}.pid").read_text()))
    for pid in lost:
        kill(pid)
    began = time.monotonic()
    wait_until(lambda: room_for(60, gateway, airflow), 5)
    print(f"hold free {time.monotonic() - began:.2f} s after its worker was lost, {len(lost)} processes killed")
    assert history(airflow, "abandoned")[0]["labels"]["run_id"] == run.run_id
    assert run.ended() == "success"
    print(f"next try ended {time.monotonic() - began:.0f} s after that")
    assert run.tasks()["enrich", -1]["try_number"] == 2
    assert run.xcom("credit_report", "enrich")["outcome"] == "succeeded"
    assert holds(airflow) == []


def test_sensors_wait_without_a_slot_and_are_released_by_a_top_up(airflow: Deployment, pools) -> None:
    gateway, _ = pools
    deferred = airflow.trigger("sensor_deferred", budget=120)
    rescheduled = airflow.trigger("sensor_rescheduled", budget=120)
    gate = airflow.trigger("gate_reschedule", budget=120)
    wait_until(lambda: deferred.states()["wait", -1] == "deferred", 90)
    for run, task in ((rescheduled, "wait"), (gate, "gate")):  # the second time it asks, it has been rescheduled
        wait_until(lambda run=run, task=task: len(run.events(task)) >= 2, 90)
    gateway.top_up(50)
    assert [run.ended() for run in (deferred, rescheduled, gate)] == ["success"] * 3
    for run, task in ((deferred, "wait"), (rescheduled, "wait"), (gate, "gate")):
        assert {event["event_name"] for event in run.events(task)} == {"creditguard.waiting"}
        assert run.tasks()[task, -1]["try_number"] == 1
        assert run.xcom("return_value", task)["headroom"] == 150


def test_events_are_fields_of_the_log_and_keys_are_masked_in_it(airflow: Deployment, pools) -> None:
    run = airflow.trigger("with_block", budget=50)
    assert run.ended() == "success"
    admitted, *_, finished = run.events("enrich")
    assert admitted["event_name"] == "creditguard.admitted"
    assert admitted["event"] == "with_block.enrich: admitted, 50 of 100 credits held"
    assert admitted["balance_before"] == 100
    assert admitted["guard_run_id"] == finished["guard_run_id"]
    assert "run_id" not in admitted or admitted["run_id"] == run.run_id
    assert finished["credits_recorded"] == 5
    assert finished["labels"] == {
        "team": "ml",
        "dag_id": "with_block",
        "task_id": "enrich",
        "run_id": run.run_id,
        "try_number": 1,
        "map_index": -1,
    }
    printed = [
        line["event"] for line in run.log("enrich") if "key is" in line["event"] or "in the run" in line["event"]
    ]
    assert printed == ["the key is ***", "and in the run ***"]


def test_the_button_opens_the_report_for_whoever_may_read_the_tasks_xcoms(airflow: Deployment) -> None:
    run = airflow.trigger("decorated", budget=50)
    assert run.ended() == "success"
    link = airflow.get(f"{run.path}/taskInstances/enrich/links")["extra_links"]["Credit report"]
    report = (
        f"{airflow.url}/api/v2/{run.path}/taskInstances/enrich/xcomEntries/credit_report?deserialize=true&map_index=-1"
    )
    with httpx.Client(trust_env=False, timeout=30, cookies={"_token": airflow.token}) as browser:
        page = browser.get(link)
        assert page.status_code == 200
        assert "xcomEntries/credit_report" in page.text
        assert run.run_id not in page.text  # there is nothing in it; the reader's browser asks Airflow
        assert browser.get(report).json()["value"]["sentence"].startswith("enrich: consumed 3 of 50 credits")
    assert httpx.get(report, trust_env=False).status_code == 401


def test_the_connection_can_be_tried_from_airflows_form(airflow: Deployment, pools) -> None:
    """As the page of 3.3 sends it: port 0 and extra "{}" for what its form does not show."""
    gateway, _ = pools
    empty = {"login": "", "schema": "", "description": "", "port": 0, "extra": "{}"}
    form = {"connection_id": "form", "conn_type": "apimall", "host": gateway.url, "password": gateway.key, **empty}
    answer = airflow.post("connections/test", **form)
    assert answer["status"] is True
    assert answer["message"].endswith("credits left")


def test_the_keys_are_nowhere(airflow: Deployment, pools) -> None:
    run = airflow.trigger("decorated", budget=50)
    assert run.ended() == "success"
    keys = [gateway.key.encode() for gateway in pools]
    files = [path for path in airflow.home.rglob("*") if path.is_file()]
    assert any(path.name.startswith("attempt=") for path in files)
    found = {path for path in files for key in keys if key in path.read_bytes()}
    # Airflow 3.3 copies what tasks print to the executor's own output and masks nothing there, connection passwords neither.
    assert {path.name for path in found} <= {"standalone.out", "worker-1.out", "worker-2.out"}
    lines = [line for path in found for line in path.read_bytes().splitlines()]
    printed = [line for line in lines if any(key in line for key in keys)]
    assert all(b"[task.stdout]" in line and (b"key is" in line or b"in the run" in line) for line in printed)
