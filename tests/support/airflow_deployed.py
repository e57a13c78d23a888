"""Airflow 3 as it is deployed: its own processes, with a home of their own, and what its REST API and its log files say of runs.

With LocalExecutor that is `airflow standalone` on SQLite; with CeleryExecutor each part by itself on PostgreSQL, Redis and two workers.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

DAGS = Path(__file__).parents[1] / "airflow" / "dags"
_PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Deployment:
    """Its processes run once it is made; `ready` waits until they serve."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        shutil.copytree(DAGS, home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        (home / "passwords.json").write_text(json.dumps({"admin": "admin"}))
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "CREDITGUARD"))}
        self._environment = mine | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            # A lost worker is told by the heartbeats that are missing: after 5 minutes, but for these two.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CREDITGUARD_LEDGER": f"sqlite:///{home}/ledger.sqlite3",
            **environment,
        }
        self.ledger = self._environment["CREDITGUARD_LEDGER"]
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.deploy()

    def deploy(self) -> None:
        self.start("standalone")

    def start(self, *command: str, name: str = "") -> None:
        name = name or command[0]
        with (self.home / f"{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End every process of the sessions: tasks have process groups of their own."""
        self._client.close()
        for number, patience in ((signal.SIGTERM, 8), (signal.SIGKILL, 5)):
            ends = time.monotonic() + patience
            for pid in self._pids():
                kill(pid, number)
            while self._pids() and time.monotonic() < ends:
                time.sleep(0.1)
        assert not self._pids()

    def _pids(self) -> list[int]:
        for process in self._processes.values():
            process.poll()
        sessions = {process.pid for process in self._processes.values()}
        return [pid for pid, (state, _, session) in processes().items() if session in sessions and state != "Z"]

    def ready(self) -> None:
        def healthy() -> bool:
            for name, process in self._processes.items():
                assert process.poll() is None, (self.home / f"{name}.out").read_text()[-3000:]
            try:
                health = self._client.get("/api/v2/monitor/health").json()
            except (httpx.HTTPError, ValueError):
                return False
            return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor"))

        wait_until(healthy, 300)
        token = self._client.post("/auth/token", json={"username": "admin", "password": "admin"}).json()["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"
        files = {path.stem for path in (self.home / "dags").glob("*.py")}
        wait_until(lambda: {dag["relative_fileloc"][:-3] for dag in self.get("dags")["dags"]} == files, 60)

    def get(self, path: str) -> Any:
        return self._client.get(f"/api/v2/{path}").raise_for_status().json()

    def post(self, path: str, **body: object) -> Any:
        return self._client.post(f"/api/v2/{path}", json=body).raise_for_status().json()

    def patch(self, path: str, **body: object) -> None:
        self._client.patch(f"/api/v2/{path}", json=body).raise_for_status()

    def worker_of(self, task: int) -> list[int]:
        """The processes of the worker that a task's process belongs to: itself, and what watches over it."""
        return [task, processes()[task][1]]

    @property
    def token(self) -> str:
        return self._client.headers["Authorization"].partition(" ")[2]

    def trigger(self, dag_id: str, **conf: object) -> Flight:
        answer = self.post(f"dags/{dag_id}/dagRuns", logical_date=None, conf=conf)
        return Flight(self, dag_id, answer["dag_run_id"])


class CeleryDeployment(Deployment):
    """Each part of Airflow by itself, and two workers on this host."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        from postgres_server import PostgresServer

        self._redis = _redis(home)
        self._postgres = PostgresServer()
        there = self._postgres.url.partition("://")[2]
        super().__init__(
            home,
            environment
            | {
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{there}",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{there}",
                "AIRFLOW__CELERY__BROKER_URL": f"redis+socket://{home}/redis.sock",
                "AIRFLOW__CELERY__RESULT_BACKEND": f"redis+socket://{home}/redis.sock?virtual_host=1",
                "AIRFLOW__CELERY__WORKER_CONCURRENCY": "3",
                "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
                "CREDITGUARD_LEDGER": self._postgres.url,  # a fleet's workers have no file in common
            },
        )

    def deploy(self) -> None:
        self.start("db", "migrate")
        assert self._processes.pop("db").wait(240) == 0, (self.home / "db.out").read_text()[-3000:]
        for part in _PARTS:
            self.start(part)
        for worker in ("worker-1", "worker-2"):
            self.start("celery", "worker", "--celery-hostname", worker, "--skip-serve-logs", name=worker)

    def worker_of(self, task: int) -> list[int]:
        everybody = processes()
        return [pid for pid, (_, _, session) in everybody.items() if session == everybody[task][2]]

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self._redis.kill()
            self._redis.wait()
            self._postgres.remove()


def _redis(home: Path) -> subprocess.Popen[bytes]:
    here = ("--port", "0", "--unixsocket", str(home / "redis.sock"), "--save", "", "--dir", str(home))
    server = subprocess.Popen(["redis-server", *here], stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until((home / "redis.sock").exists, 20)
    return server


class Flight:
    """A DAG run."""

    def __init__(self, airflow: Deployment, dag_id: str, run_id: str) -> None:
        self._airflow, self.dag_id, self.run_id = airflow, dag_id, run_id
        self.path = f"dags/{dag_id}/dagRuns/{run_id}"

    def state(self) -> str:
        return str(self._airflow.get(self.path)["state"])

    def tasks(self) -> dict[tuple[str, int], dict[str, Any]]:
        answer = self._airflow.get(f"{self.path}/taskInstances")
        return {(each["task_id"], each["map_index"]): each for each in answer["task_instances"]}

    def states(self) -> dict[tuple[str, int], str]:
        return {key: each["state"] for key, each in self.tasks().items()}

    def is_over(self) -> bool:
        return self.state() in {"success", "failed"}

    def ended(self) -> str:
        wait_until(self.is_over, 180)
        return self.state()

    def xcom(self, key: str, task_id: str, map_index: int = -1) -> Any:
        path = f"{self.path}/taskInstances/{task_id}/xcomEntries/{key}?map_index={map_index}&deserialize=true"
        return self._airflow.get(path)["value"]

    def mark_failed(self, task_id: str) -> None:
        self._airflow.patch(f"{self.path}/taskInstances/{task_id}", new_state="failed")

    def clear(self, task_id: str) -> None:
        """As the button does: ended if it runs, and run again."""
        only = {"dag_run_id": self.run_id, "task_ids": [task_id], "only_failed": False, "dry_run": False}
        self._airflow.post(f"dags/{self.dag_id}/clearTaskInstances", **only)

    def log(self, task_id: str, map_index: int = -1, attempt: int | str = "*") -> list[dict[str, Any]]:
        """The lines of the task's log file, as Airflow wrote them."""
        folder = self._airflow.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}" / f"task_id={task_id}"
        folder = folder / f"map_index={map_index}" if map_index >= 0 else folder
        files = sorted(folder.glob(f"attempt={attempt}.log"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def events(self, task_id: str, map_index: int = -1, attempt: int | str = "*") -> list[dict[str, Any]]:
        lines = self.log(task_id, map_index, attempt)
        return [line for line in lines if line.get("event_name", "").startswith("creditguard.")]


def processes() -> dict[int, tuple[str, int, int]]:
    """Every process of this machine: its state, its parent and its session."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, session, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(stat.parent.name)] = (state, int(parent), int(session))
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.5)
    return found
