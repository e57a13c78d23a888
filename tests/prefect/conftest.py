"""Prefect itself, in its own venv: one server for all tests, and a look at what it keeps. Without Prefect nothing is collected."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
_KEYS: set[str] = set()

if find_spec("prefect") is None:
    collect_ignore_glob = ["*"]
else:
    # Prefect reads its environment when it is imported, so this cannot wait for a fixture.
    _HOME = tempfile.mkdtemp(prefix="prefect-home-")
    os.environ |= {
        "PREFECT_HOME": _HOME,
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": f"{_HOME}/storage",  # which in Prefect 3.8 does not follow PREFECT_HOME
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.2",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.2",
    }
    for _variable in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE"):
        os.environ.pop(_variable, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import prefect.testing.utilities
    import httpx
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    from creditguard.sandbox import Gateway


def pytest_configure(config: pytest.Config) -> None:
    if find_spec("prefect") is not None:
        config.addinivalue_line("filterwarnings", "default")  # our own warnings are errors, those of an engine are not


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if _HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.timeout(240))  # the first one waits for the server
    # What the server keeps is searched for keys at the very end.
    items.sort(key=lambda item: item.path.name == "test_secrecy.py")


def pytest_sessionfinish() -> None:
    if find_spec("prefect") is not None:
        shutil.rmtree(_HOME, ignore_errors=True)


def plain(markdown: str) -> str:
    return re.sub(r"\\(.)", r"\1", markdown)


def cells(row: str) -> list[str]:
    return [plain(cell) for cell in re.split(r"(?<!\\) ?\| ?", row)[1:-1]]


class Api:
    """What the server knows, over its REST API: the way a user would look it up."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, body: object = None) -> Any:
        return self._ask("POST", path, json=body or {})

    def _ask(self, method: str, path: str, **content: object) -> Any:
        # On a busy machine the server says 503 when its database is locked for too long: nothing was done, come again.
        for _ in range(20):
            answer = self._http.request(method, path, **content)
            if answer.status_code != 503:
                break
            time.sleep(1)
        return answer.raise_for_status().json()

    def eventually(self, look: Callable[[], Any], *, seconds: float = 60) -> Any:
        """The first answer that is not empty: logs and events travel by queues."""
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, "not found on the server in time"
            time.sleep(0.1)
        return found

    def artifacts(self, flow_run_id: object, kind: str = "credit-report") -> list[dict[str, Any]]:
        """The pages of a flow run, oldest first, each with its sentence, its five figures, and all its fields."""
        of_run = {"flow_run_id": {"any_": [str(flow_run_id)]}, "key": {"like_": kind}}
        found = self.post("/artifacts/filter", {"artifacts": of_run, "sort": "CREATED_DESC"})
        for artifact in found:
            if artifact["type"] == "markdown":
                sentence, head, _, row, *rest = [line for line in artifact["data"].splitlines() if line]
                artifact["sentence"] = plain(sentence)
                artifact["figures"] = dict(zip(cells(head), cells(row), strict=True))
                artifact["table"] = {name.strip("`"): json.loads(value) for name, value in map(cells, rest[2:])}
        return found[::-1]

    def logs(self, flow_run_id: object, until: str = "creditguard.") -> list[dict[str, Any]]:
        """The run's log records about credits, as soon as one is of an event that starts with `until`; their fields under
        `fields`, and what a person reads first under `sentence`."""

        def look() -> list[dict[str, Any]]:
            body = {"logs": {"flow_run_id": {"any_": [str(flow_run_id)]}}}
            found = []
            for record in self.post("/logs/filter", body):
                if ours := re.fullmatch(r"(.+)\n(creditguard\.\w+) (\{.*\})", record["message"]):
                    sentence, event, fields = ours.groups()
                    found.append(record | {"sentence": sentence, "event": event, "fields": json.loads(fields)})
            return found if any(each["event"].startswith(until) for each in found) else []

        return sorted(self.eventually(look), key=lambda record: record["timestamp"])

    def events(self, flow_run_id: object, name: str) -> list[dict[str, Any]]:
        """Prefect's events of that name that are related to the flow run."""
        body = {
            "filter": {
                "event": {"name": [name]},
                "any_resource": {"id": [f"prefect.flow-run.{flow_run_id}"]},
                "occurred": {"since": "2020-01-01T00:00:00Z"},
            },
            "limit": 50,
        }
        return self.eventually(lambda: self.post("/events/filter", body)["events"])

    def task_runs(self, flow_run_id: object) -> list[dict[str, Any]]:
        return self.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [str(flow_run_id)]}}})

    def flow_run(self, flow_run_id: object) -> dict[str, Any]:
        return self.get(f"/flow_runs/{flow_run_id}")


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    # A sync flow with heartbeats takes a second to end.
    heartbeats = getattr(prefect.settings, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY", None)  # since 3.6
    quick = temporary_settings({heartbeats: None} if heartbeats else {})
    with quick, prefect.testing.utilities.prefect_test_harness(server_startup_timeout=120):
        api = Api(PREFECT_API_URL.value())
        yield api
        api.close()


@pytest.fixture(autouse=True)
def _server(api: Api) -> None:
    """Every flow runs against the one server."""


@pytest.fixture
def gateway(credit_gateway: Gateway) -> Gateway:
    _KEYS.add(credit_gateway.key)
    return credit_gateway


@pytest.fixture
def keys() -> set[str]:
    """Every key that a test has used so far."""
    return _KEYS


@pytest.fixture
def server_database() -> Path:
    return Path(PREFECT_SERVER_DATABASE_CONNECTION_URL.value().partition(":///")[2])


@pytest.fixture
def prefect_home() -> Path:
    return Path(_HOME)


@pytest.fixture
def ledger(gateway: Gateway) -> Any:
    """The ledger that the guards of the test use."""
    from creditguard.ledgers import open_ledger

    ledger = open_ledger(os.environ["CREDITGUARD_LEDGER"])
    yield ledger
    ledger.close()
