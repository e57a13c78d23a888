"""What every row needs: a gateway, an environment of our own, a place for ledgers, and processes to time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from measure import Arm

BENCH = Path(__file__).parent
ROOT = BENCH.parent


@dataclass
class World:
    """Where the rows happen. `quick`: fewer rounds and smaller numbers."""

    quick: bool
    folder: Path
    url: str
    key: str
    _stack: ExitStack
    _postgres: str | None = field(default=None)

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @property
    def balances(self) -> str:
        """The URL of the balance request."""
        return f"{self.url}/api/v1/account/balances"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def balance_requests(self) -> int:
        """How many the gateway has answered so far."""
        request = urllib.request.Request(f"{self.url}/_sandbox/state", headers=self.headers)
        with urllib.request.urlopen(request) as answer:
            state: dict[str, Any] = json.load(answer)["data"]
        return int(state["balance_reads"])

    def sqlite(self, name: str) -> str:
        """The URL of a new SQLite ledger."""
        return f"sqlite:///{self.folder}/{name}.db"

    def lean(self) -> dict[str, str]:
        """An environment for processes as if nothing were installed but creditguard and what it needs.

        httpx imports click, rich and pygments where it finds them, and httpcore imports trio: development tools here, which
        would make a floor out of them twice as high.
        """
        place = self.folder / "lean"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text("import sys; sys.modules.update(click=None, trio=None)")
        return {**os.environ, "PYTHONPATH": f"{place}:{ROOT}"}

    def postgres(self, name: str) -> str:
        """The URL of a new database on a PostgreSQL that is started when first asked for. Raises ImportError without psycopg."""
        import psycopg

        if self._postgres is None:
            sys.path.append(str(ROOT / "tests" / "support"))
            from postgres_server import PostgresServer

            server = PostgresServer()
            self._stack.callback(server.remove)
            self._postgres = server.url
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._postgres.replace("/postgres?", f"/{name}?")


@contextmanager
def world(*, quick: bool) -> Iterator[World]:
    """Make the world, make it this process's environment and its children's, and take it down."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="creditguard-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _own_environment(folder)
        gateway = subprocess.Popen(
            [sys.executable, BENCH / "gateway.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.callback(_end, gateway)
        assert gateway.stdout is not None
        url, key = gateway.stdout.readline().split()
        os.environ |= {"CREDITGUARD_BASE_URL": url, "APIMALL_API_KEY": key}
        yield World(quick, folder, url, key, stack)


def _own_environment(folder: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("CREDITGUARD_", "APIMALL_", "PYTHON")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.chdir(folder)  # where no settings file is
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    os.environ["PYTHONPATH"] = str(ROOT)  # before what is installed: console scripts run this tree too
    # As after an installation: modules are compiled once, by the warm-up, and not at each start.
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()  # closes its stdin


def script(name: str) -> str:
    """The path of an installed console script."""
    return f"{sysconfig.get_path('scripts')}/{name}"


def process(*command: str, environment: Mapping[str, str] | None = None) -> Arm:
    """An arm that times a process from its start to its end."""

    def arm() -> float:
        start = perf_counter()
        run(command, environment)
        return perf_counter() - start

    return arm


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{Path(command[0]).name} {' '.join(command[1:3])}: exit code {done.returncode} {said}")
