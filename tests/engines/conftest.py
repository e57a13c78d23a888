"""The recipes of docs/engines.md, as files in a folder of their own, run by the engines themselves. Without these nothing is collected."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from creditguard.ledgers import open_ledger
from creditguard.sandbox import Gateway

_ROOT = Path(__file__).parents[2]
PAGE = (_ROOT / "docs/engines.md").read_text()

if find_spec("celery") is None:
    collect_ignore_glob = ["*"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))  # an engine takes its time on a busy machine


class Recipes:
    """A folder with the page's files, a gateway with 120 credits, and the ledger that the guards use."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self.folder = folder
        self.gateway = gateway
        self.ledger = open_ledger(os.environ["CREDITGUARD_LEDGER"])
        self.started: list[subprocess.Popen[str]] = []
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{folder}:{_ROOT}",
        }
        for name, code in re.findall(r"```python\n# (\w+\.py)(?::[^\n]*)?\n(.*?)```", PAGE, re.DOTALL):
            (folder / name).write_text(code)
        shutil.copy(_ROOT / "examples/apimall.py", folder)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A process group of its own, whose output is in the file `output`."""
        with (self.folder / "output").open("a") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=output, stderr=output, text=True, start_new_session=True
            )  # fmt: skip
        self.started.append(process)
        return process

    def close(self) -> None:
        """Leave nothing behind, whatever the test came to."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.ledger.close()

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def python(self, code: str, timeout: float = 150) -> str:
        """What `code` printed, run as a script beside the recipes."""
        (self.folder / "script.py").write_text(textwrap.dedent(code))
        done = subprocess.run(
            [sys.executable, "script.py"], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def hang(self, *, times: int = 1) -> None:
        """Make the next images take a minute, so that a job can be killed while it draws."""
        self.gateway.fault(path="/api/v1/images/generate", delay=60, times=times)

    def eventually(self, look: Callable[[], Any], seconds: float = 100) -> Any:
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, f"did not happen in time: {self.output}"
            time.sleep(0.05)
        return found

    def kill_the_job(self) -> str:
        """SIGKILL the process that draws; the id of its run."""
        self.eventually(lambda: self.gateway.requests["/api/v1/images/generate"])
        (held,) = self.ledger.holds()
        os.kill(held.owner.pid, signal.SIGKILL)
        return held.hold.id

    def runs(self) -> list[tuple[str, str, Any]]:
        """Job, outcome and what was consumed of all runs that ended, oldest first."""
        return [(run["job"], run["outcome"], run["credits_consumed"]) for run in self.ledger.runs()]

    def labels(self) -> list[dict[str, Any]]:
        return [dict(run["labels"]) for run in self.ledger.runs()]


@pytest.fixture
def recipes(tmp_path: Path, credit_gateway: Gateway) -> Iterator[Recipes]:
    recipes = Recipes(tmp_path, credit_gateway)
    yield recipes
    recipes.close()


@pytest.fixture
def sees_it_abandoned(recipes: Recipes) -> Callable[[str], None]:
    """The run that was killed still holds its budget, until somebody would be short because of it: who gets it, and reports the run."""

    def sees(run_id: str) -> None:
        assert [each.hold.id for each in recipes.ledger.holds()] == [run_id]
        rest = recipes.gateway.credits
        said = recipes.python(f"""
            import logging
            from creditguard import guard
            class Show(logging.Handler):
                def emit(self, record): print(record.event, getattr(record, "outcome", ""), record.run_id)
            logging.getLogger("creditguard").addHandler(Show())
            logging.getLogger("creditguard").setLevel(logging.INFO)
            with guard("next", budget={rest}):
                pass
        """).splitlines()
        assert f"creditguard.abandoned  {run_id}" in said
        assert recipes.ledger.holds() == []
        (abandoned,) = [run for run in recipes.ledger.runs() if run["outcome"] == "abandoned"]
        assert (abandoned["run_id"], abandoned["credits_consumed"]) == (run_id, None)

    return sees
