"""The Airflow tests: real engines, in a venv of their own (`make test-airflow`, `make test-airflow2`); elsewhere nothing is collected.

One process runs them all, with `dag.test()`: Airflow takes some fifteen seconds to start, and a run then a few tenths of one.
What needs the real scheduler is in test_deployed.py.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HAS_AIRFLOW = importlib.util.find_spec("airflow") is not None

if not HAS_AIRFLOW:
    collect_ignore_glob = ["*"]
else:
    # Before the first import of Airflow, which reads all this once.
    HOME = Path(tempfile.mkdtemp(prefix="creditguard-airflow-"))
    DAGS = HOME / "dags"
    shutil.copytree(HERE / "dags", DAGS, ignore=shutil.ignore_patterns("__pycache__"))
    for example in (HERE.parent.parent / "creditguard" / "airflow" / "example_dags").glob("example_*.py"):
        shutil.copy(example, DAGS / example.name)
    os.environ |= {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The search for keys comes last: it looks at what all the others have left."""
    items.sort(key=lambda item: item.path.name == "test_no_key_anywhere.py")


def pytest_unconfigure() -> None:
    if HAS_AIRFLOW and not os.environ.get("CREDITGUARD_KEEP"):
        shutil.rmtree(HOME, ignore_errors=True)


class Engine:
    """Airflow in this process."""

    def __init__(self) -> None:
        from airflow import __version__
        from airflow.utils.db import initdb

        self.version = tuple(int(part) for part in __version__.split(".")[:2])
        self.home = HOME
        self.dags = DAGS
        initdb()
        self._bag = self._load()

    def _load(self):
        try:
            from airflow.dag_processing.dagbag import BundleDagBag

            bag = BundleDagBag(dag_folder=self.dags, bundle_path=self.dags, bundle_name="dags-folder")
        except ImportError:  # before 3.2
            from airflow.models.dagbag import DagBag

            bag = DagBag(self.dags, include_examples=False)
        assert not bag.import_errors, bag.import_errors
        return bag

    @staticmethod
    def database() -> sqlite3.Connection:
        return database()

    def dag(self, dag_id: str):
        return self._bag.dags[dag_id]

    def run(self, dag_id: str, **conf: object) -> Result:
        """One run of the DAG, to its end."""
        handler = signal.getsignal(signal.SIGTERM)
        try:
            run = self.dag(dag_id).test(run_conf=conf)
        finally:
            signal.signal(signal.SIGTERM, handler)  # Airflow leaves its own behind, and pytest could not be ended
        return Result(dag_id, run.run_id, str(getattr(run.state, "value", run.state)))


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(HOME / "airflow.db")
    connection.row_factory = sqlite3.Row
    return connection


class Result:
    """What the metadata database says about a DAG run."""

    def __init__(self, dag_id: str, run_id: str, state: str) -> None:
        self.dag_id, self.run_id, self.state = dag_id, run_id, state
        with database() as rows:
            found = rows.execute(
                "select task_id, map_index, state, try_number from task_instance where dag_id = ? and run_id = ?",
                (dag_id, run_id),
            ).fetchall()
        self.tries = {(row["task_id"], row["map_index"]): row["try_number"] for row in found}
        self.states = {(row["task_id"], row["map_index"]): row["state"] for row in found}

    def state_of(self, task_id: str, map_index: int = -1) -> str:
        return self.states[task_id, map_index]

    def tries_of(self, task_id: str, map_index: int = -1) -> int:
        return self.tries[task_id, map_index]

    def xcoms(self, key: str, task_id: str) -> dict[int, object]:
        """By map index."""
        with database() as rows:
            found = rows.execute(
                "select map_index, value from xcom where dag_id = ? and run_id = ? and task_id = ? and key = ?",
                (self.dag_id, self.run_id, task_id, key),
            ).fetchall()
        return {row["map_index"]: _plain(row["value"]) for row in found}

    def xcom(self, key: str, task_id: str) -> object:
        return self.xcoms(key, task_id)[-1]


def _plain(value: object) -> object:
    if not isinstance(value, (str, bytes)):
        return value  # SQLite makes a number of a JSON number
    plain = json.loads(value)
    return json.loads(plain) if isinstance(plain, str) and plain[:1] in "{[" else plain


@pytest.fixture(scope="session")
def airflow() -> Engine:
    return Engine()


@pytest.fixture(scope="session")
def gateways() -> Iterator[tuple]:
    """One that the connection `apimall_default` leads to, and one that the environment does."""
    from creditguard.sandbox import Gateway

    with Gateway(credits=0) as by_connection, Gateway(credits=0) as by_environment:
        yield by_connection, by_environment


@pytest.fixture
def gateway(gateways, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The connection's gateway, with 100 credits, and a ledger of the test's own."""
    gateway, _ = gateways
    gateway.control(clear_faults=True, set_credits=100)
    connection = {"conn_type": "apimall", "host": gateway.url, "password": gateway.key}
    monkeypatch.setenv("AIRFLOW_CONN_APIMALL_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("CREDITGUARD_LEDGER", f"sqlite:///{tmp_path}/ledger.sqlite3")
    return gateway


@pytest.fixture
def env_gateway(gateways, gateway, monkeypatch: pytest.MonkeyPatch):
    """The environment's gateway, with 100 credits; the connection is there as well."""
    _, env_gateway = gateways
    env_gateway.control(clear_faults=True, set_credits=100)
    monkeypatch.setenv("APIMALL_API_KEY", env_gateway.key)
    monkeypatch.setenv("CREDITGUARD_BASE_URL", env_gateway.url)
    return env_gateway


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What was logged in this process, oldest first; but for `lagging`, since the jobs here record what nobody debits."""
    from creditguard.airflow.sinks import TaskSink
    from creditguard.rules.events import LAGGING, REFUSED
    from creditguard.sinks.host import HostSink

    seen: list[dict] = []

    def noting(emit):
        def emit_and_note(self, event) -> None:
            level = getattr(self, "_refusals", event.level) if event.name == REFUSED else event.level
            if event.name != LAGGING:
                seen.append({"event": event.name.removeprefix("creditguard."), "level": level, **event.fields})
            emit(self, event)

        return emit_and_note

    for sink in (TaskSink, HostSink):  # in a task, and outside of one
        monkeypatch.setattr(sink, "emit", noting(sink.emit))
    return seen


def held(ledger_url: str) -> list:
    """The live holds of a ledger."""
    from creditguard.ledgers import open_ledger

    ledger = open_ledger(ledger_url)
    try:
        return list(ledger.holds())
    finally:
        ledger.close()


@pytest.fixture
def holds(gateway):
    return lambda: held(os.environ["CREDITGUARD_LEDGER"])
