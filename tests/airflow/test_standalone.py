"""Airflow 3 as it is deployed: API server, scheduler, triggerer, LocalExecutor and real task logs (`make test-airflow-standalone`).

What `dag.test()` cannot show: tasks that run at the same time, that are killed, that wait in the triggerer, and log files.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.timeout(600)

HERE = Path(__file__).parent


class Standalone:
    """`airflow standalone` with a home of its own, and its REST API."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        import airflow

        if airflow.__version__.startswith("2."):
            pytest.skip("for Airflow 3")
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shutil.copytree(HERE / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        self.url = f"http://127.0.0.1:{port}"
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "CREDITGUARD"))}
        mine |= environment | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._out = (home / "standalone.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=mine,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def stop(self) -> None:
        """End every process of the session: tasks have process groups of their own."""
        self._client.close()
        self._out.close()
        for number, patience in ((signal.SIGTERM, 8), (signal.SIGKILL, 5)):
            ends = time.monotonic() + patience
            for pid in self._session():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            while self._session() and time.monotonic() < ends:
                self.process.poll()
                time.sleep(0.1)
        self.process.poll()
        assert not self._session()

    def _session(self) -> list[int]:
        pids = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid and fields[0] != "Z":
                pids.append(int(stat.parent.name))
        return pids

    def ready(self) -> None:
        def healthy() -> bool:
            assert self.process.poll() is None, (self.home / "standalone.log").read_text()[-3000:]
            try:
                health = self._client.get("/api/v2/monitor/health").json()
            except (httpx.HTTPError, ValueError):
                return False
            return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor"))

        wait_until(healthy, 300)
        self._client.headers["Authorization"] = f"Bearer {self._client.get('/auth/token').json()['access_token']}"
        files = {path.stem for path in (self.home / "dags").glob("*.py")}
        wait_until(lambda: {dag["relative_fileloc"][:-3] for dag in self.get("dags")["dags"]} == files, 60)

    def get(self, path: str) -> Any:
        return self._client.get(f"/api/v2/{path}").raise_for_status().json()

    def trigger(self, dag_id: str, **conf: object) -> Flight:
        body = {"logical_date": None, "conf": conf}
        answer = self._client.post(f"/api/v2/dags/{dag_id}/dagRuns", json=body).raise_for_status().json()
        return Flight(self, dag_id, answer["dag_run_id"])

    def patch(self, path: str, **body: object) -> None:
        self._client.patch(f"/api/v2/{path}", json=body).raise_for_status()


class Flight:
    """A DAG run."""

    def __init__(self, airflow: Standalone, dag_id: str, run_id: str) -> None:
        self._airflow, self.dag_id, self.run_id = airflow, dag_id, run_id
        self._path = f"dags/{dag_id}/dagRuns/{run_id}"

    def tasks(self) -> dict[tuple[str, int], dict[str, Any]]:
        answer = self._airflow.get(f"{self._path}/taskInstances")
        return {(each["task_id"], each["map_index"]): each for each in answer["task_instances"]}

    def states(self) -> dict[tuple[str, int], str]:
        return {key: each["state"] for key, each in self.tasks().items()}

    def ended(self) -> str:
        def over() -> str | None:
            state = self._airflow.get(self._path)["state"]
            return state if state in ("success", "failed") else None

        return wait_until(over, 180)

    def xcom(self, key: str, task_id: str, map_index: int = -1) -> Any:
        path = f"{self._path}/taskInstances/{task_id}/xcomEntries/{key}?map_index={map_index}&deserialize=true"
        return self._airflow.get(path)["value"]

    def mark_failed(self, task_id: str) -> None:
        self._airflow.patch(f"{self._path}/taskInstances/{task_id}", new_state="failed")

    def log(self, task_id: str, map_index: int = -1) -> list[dict[str, Any]]:
        """The lines of the task's log file, as Airflow wrote them."""
        folder = self._airflow.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}" / f"task_id={task_id}"
        files = sorted((folder / f"map_index={map_index}" if map_index >= 0 else folder).glob("attempt=*.log"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def events(self, task_id: str, map_index: int = -1) -> list[dict[str, Any]]:
        return [line for line in self.log(task_id, map_index) if line.get("event_name", "").startswith("creditguard.")]


def wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def pools() -> Iterator[tuple]:
    from creditguard.sandbox import Gateway

    with Gateway(credits=100) as by_connection, Gateway(credits=100) as by_environment:
        yield by_connection, by_environment


@pytest.fixture(scope="module")
def airflow(pools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    by_connection, by_environment = pools
    home = tmp_path_factory.mktemp("standalone")
    connection = {"conn_type": "apimall", "host": by_connection.url, "password": by_connection.key}
    standalone = Standalone(
        home,
        {
            "AIRFLOW_CONN_APIMALL_DEFAULT": json.dumps(connection),
            "APIMALL_API_KEY": by_environment.key,
            "CREDITGUARD_BASE_URL": by_environment.url,
            "CREDITGUARD_LEDGER": f"sqlite:///{home}/ledger.sqlite3",
            "CREDITGUARD_TEST_RELEASE": str(home / "release"),
            # A task that comes back within a second or two of its reschedule is failed now and then by Airflow's own scheduler
            # ("finished with state success, but the task instance's state is queued").
            "CREDITGUARD_TEST_POKE": "4",
        },
    )
    try:
        standalone.ready()
        yield standalone
    finally:
        standalone.stop()


def holds(airflow: Standalone) -> list[str]:
    from creditguard.ledgers import open_ledger

    ledger = open_ledger(f"sqlite:///{airflow.home}/ledger.sqlite3")
    try:
        return [live.hold.job for live in ledger.holds()]
    finally:
        ledger.close()


def test_nothing_is_read_while_dags_are_parsed(airflow: Standalone, pools) -> None:
    assert [gateway.balance_reads for gateway in pools] == [0, 0]


def test_of_two_mapped_tasks_that_fit_one_by_one_exactly_one_is_admitted(airflow: Standalone) -> None:
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


def test_of_four_mapped_tasks_two_fit_and_the_others_wait_their_turn(airflow: Standalone) -> None:
    run = airflow.trigger("crowd")
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, len(holds(airflow)))
        return airflow.get(run._path)["state"] in {"success", "failed"}

    wait_until(over, 240)
    assert set(run.states().values()) == {"success"}
    assert [task["try_number"] for task in run.tasks().values()] == [1] * 4
    assert most == 2
    reports = [run.xcom("credit_report", "enrich", index) for index in range(4)]
    assert [report["outcome"] for report in reports] == ["succeeded"] * 4


def test_the_first_that_a_person_reads_of_a_refusal_is_its_reason(airflow: Standalone) -> None:
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


def test_a_task_marked_failed_is_settled(airflow: Standalone) -> None:
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


def test_sensors_wait_without_a_slot_and_are_released_by_a_top_up(airflow: Standalone, pools) -> None:
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


def test_events_are_fields_of_the_log_and_keys_are_masked_in_it(airflow: Standalone, pools) -> None:
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


def test_the_button_opens_the_report_for_whoever_may_read_the_tasks_xcoms(airflow: Standalone) -> None:
    run = airflow.trigger("decorated", budget=50)
    assert run.ended() == "success"
    link = airflow.get(f"{run._path}/taskInstances/enrich/links")["extra_links"]["Credit report"]
    token = airflow._client.headers["Authorization"].partition(" ")[2]
    report = (
        f"{airflow.url}/api/v2/{run._path}/taskInstances/enrich/xcomEntries/credit_report?deserialize=true&map_index=-1"
    )
    with httpx.Client(trust_env=False, timeout=30, cookies={"_token": token}) as browser:
        page = browser.get(link)
        assert page.status_code == 200
        assert "xcomEntries/credit_report" in page.text
        assert run.run_id not in page.text  # there is nothing in it; the reader's browser asks Airflow
        assert browser.get(report).json()["value"]["sentence"].startswith("enrich: consumed 3 of 50 credits")
    assert httpx.get(report, trust_env=False).status_code == 401


def test_the_connection_can_be_tried_from_airflows_form(airflow: Standalone, pools) -> None:
    """As the page of 3.3 sends it: port 0 and extra "{}" for what its form does not show."""
    gateway, _ = pools
    empty = {"login": "", "schema": "", "description": "", "port": 0, "extra": "{}"}
    form = {"connection_id": "form", "conn_type": "apimall", "host": gateway.url, "password": gateway.key, **empty}
    answer = airflow._client.post("/api/v2/connections/test", json=form).json()
    assert answer["status"] is True
    assert answer["message"].endswith("credits left")


def test_the_keys_are_nowhere(airflow: Standalone, pools) -> None:
    run = airflow.trigger("decorated", budget=50)
    assert run.ended() == "success"
    keys = [gateway.key.encode() for gateway in pools]
    files = [path for path in airflow.home.rglob("*") if path.is_file()]
    assert any(path.name == "airflow.db" for path in files)
    assert any(path.name.startswith("attempt=") for path in files)
    found = {path.name for path in files for key in keys if key in path.read_bytes()}
    # Airflow 3.3 copies what tasks print to the scheduler's own output and masks nothing there, connection passwords neither.
    assert found <= {"standalone.log"}
    lines = (airflow.home / "standalone.log").read_bytes().splitlines()
    printed = [line for line in lines if any(key in line for key in keys)]
    assert all(b"[task.stdout]" in line and (b"key is" in line or b"in the run" in line) for line in printed)
