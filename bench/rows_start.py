"""What a start costs: importing the package, and `creditguard check` and `run` in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
from measure import Noise, compare, timed
from table import Line, Skipped, line
from world import World, process, run, script

PASS = "python -c pass"


def imports(world: World) -> Iterator[Line]:
    """`import creditguard`, which schedulers do again and again, and what a guarded job imports."""
    arms = {
        "package": process(sys.executable, "-c", "import creditguard"),
        "guard": process(sys.executable, "-c", "from creditguard import guard"),
    }
    found = compare(process(sys.executable, "-c", "pass"), arms, rounds=world.pick(40, 5))
    yield line("import creditguard", PASS, found, "package", 1.2)
    yield line("from creditguard import guard", PASS, found, "guard")


def check(world: World) -> Iterator[Line]:
    """The pre-flight question from a shell, against the shortest program that asks the gateway anything; and where a settings file
    is read, against one that imports as much."""
    floor = (sys.executable, "-c", f"import httpx; httpx.get({world.balances!r})")
    stack = (sys.executable, "-c", f"import httpx, pydantic_settings; httpx.get({world.balances!r})")
    command = (script("creditguard"), "check", "--budget", "1")
    lean = world.lean()
    arms = {
        "sqlite": process(*command, environment=lean),
        "none": process(*command, "--ledger", "none", environment=lean),
    }
    found = compare(process(*floor, environment=lean), arms, rounds=world.pick(20, 2))
    yield line("creditguard check", "python -c 'httpx.get(url)'", found, "sqlite", 1.2)
    yield line("creditguard check --ledger none", "python -c 'httpx.get(url)'", found, "none")
    found = compare(process(*floor), {"check": process(*command)}, rounds=world.pick(10, 1))
    yield line("creditguard check, among all of .venv", "the same, among all of .venv", found, "check")
    (world.folder / "settings.toml").write_text("keep = 1\n")
    with_file = lean | {"CREDITGUARD_CONFIG": str(world.folder / "settings.toml")}
    found = compare(
        process(*stack, environment=lean), {"file": process(*command, environment=with_file)}, rounds=world.pick(20, 2)
    )
    yield line("creditguard check, with a settings file", "the same and pydantic_settings", found, "file", 1.15)


def wrapper(world: World) -> Iterator[Line | Skipped]:
    """`creditguard run`: the time that it adds to a command, less the two readings that it is there for; its memory."""
    command = (script("creditguard"), "run", "--budget", "1", "--")
    lean = world.lean()
    try:
        run([*command, "true"], lean)
    except RuntimeError as error:
        yield Skipped("creditguard run -- true, less 2 readings", str(error))
        yield Skipped("creditguard run, resident memory", str(error))
        return
    wrapped = process(*command, "true", environment=lean)
    with httpx.Client(headers=world.headers) as client:
        pair = timed(lambda: client.get(world.balances), 2)
        found = compare(process("env", "true"), {"run": lambda: wrapped() - pair()}, rounds=world.pick(20, 3))
    yield line("creditguard run -- true, less 2 readings", "env true", found, "run")
    if Path("/proc/self/status").exists():
        yield _memory(world, command, lean)
    else:
        yield Skipped("creditguard run, resident memory", "no /proc here to read it from")


def _memory(world: World, command: tuple[str, ...], environment: Mapping[str, str]) -> Line:
    sleeper = (sys.executable, "-c", "import time; time.sleep(2)")
    rounds = range(world.pick(3, 2))
    floor = [_resident(sleeper, environment) for _ in rounds]
    found = max(_resident((*command, "sleep", "2"), environment, until="sleep") for _ in rounds)
    again = [_resident(sleeper, environment) for _ in rounds]
    ratio = found * len(rounds) * 2 / sum(floor + again)
    detail = f"{found / 1024:.1f} MiB against {floor[0] / 1024:.1f} MiB"
    return Line(
        "creditguard run, resident memory",
        "python, asleep",
        ratio,
        Noise.of(floor, again),
        "<= 36 MiB",
        found <= 36 * 1024,
        detail,
    )


def _resident(command: tuple[str, ...], environment: Mapping[str, str], until: str | None = None) -> float:
    """KiB that a process keeps in memory, once it has started a command called `until`, or has had time to start."""
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + 20
        while until and until not in _children(started.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        status = Path(f"/proc/{started.pid}/status").read_text()
    finally:
        started.terminate()
        started.wait()
    return float(status.partition("VmRSS:")[2].split()[0])


def _children(pid: int) -> list[str]:
    """The names of a process's children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [Path(f"/proc/{child}/comm").read_text().strip() for child in children]
    except OSError:
        return []  # gone meanwhile
