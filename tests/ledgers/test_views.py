"""Two views of one machine: processes that see other pids, other clocks, another boot id, or none. None of them takes a hold from the
living, and the holds of the dead come free.

The views are real namespaces, mounts and a library that fakes the clock; where the system refuses them, the test is skipped.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ledger_world import Agent, Backend, ServerClock, new_owner
from promises import READING

from creditguard.process.identity import KERNEL, Clock, this_process
from creditguard.rules.values import Hold

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="namespaces"), pytest.mark.usefixtures("balanced")]

Start = Callable[..., Agent]


@dataclass(frozen=True)
class View:
    """How a process is made to see the machine: what it is run by, and the faked shift of its clocks."""

    within: Sequence[str] = ()
    shift: int = 0
    environment: dict[str, str] = field(default_factory=dict)


def mounted(command: str) -> tuple[str, ...]:
    """In a mount namespace, after a command in a shell."""
    return ("unshare", "--mount", "sh", "-c", f'{command} && exec "$@"', "sh")


VIEWS = {
    "pids": View(("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")),
    "pids and host": View(("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
                           'hostname container && exec "$@"', "sh")),
    "time": View(("unshare", "--time", "--fork", "--kill-child", "--monotonic", "100000", "--boottime", "100000")),
    "time and pids": View(("unshare", "--time", "--pid", "--fork", "--kill-child", "--mount-proc", "--monotonic", "9999")),
    "no boot id": View(mounted("mount -t tmpfs none /proc/sys/kernel/random")),
    "only processes in /proc": View(mounted("mount -t proc -o subset=pid proc /proc")),
    "no /proc": View(mounted("mount -t tmpfs none /proc")),
    "another boot id": View(mounted("echo 00000000-0000-4000-8000-000000000000 >$BOOT_ID && "
                                    "mount --bind $BOOT_ID /proc/sys/kernel/random/boot_id")),
    "a clock of the future": View(shift=100_000),
    "a clock of the past": View(shift=-1000),
}  # fmt: skip

FAKE_CLOCK = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long failed = syscall(SYS_clock_gettime, clock, now);
    const char *shift = getenv("FAKE_CLOCK");
    if (!failed && shift && clock != CLOCK_PROCESS_CPUTIME_ID && clock != CLOCK_THREAD_CPUTIME_ID)
        now->tv_sec += atol(shift);
    return failed;
}
"""


@pytest.fixture(scope="module")
def fake_clock(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """A library that shifts all clocks; None where there is no compiler."""
    if not shutil.which("cc"):
        return None
    folder = tmp_path_factory.mktemp("clock")
    (folder / "fake.c").write_text(FAKE_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "fake.so", folder / "fake.c"], check=True)
    return str(folder / "fake.so")


@functools.cache
def is_possible(name: str, boot_id: str) -> bool:
    command = [*VIEWS[name].within, "true"]
    return subprocess.run(command, capture_output=True, env={**os.environ, "BOOT_ID": boot_id}).returncode == 0


@pytest.fixture(autouse=True)
def possible(request: pytest.FixtureRequest, fake_clock: str | None, tmp_path: Path) -> None:
    """Skip a view that cannot be had here, before there is a ledger that could be out of balance."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("holder")
    if not name:
        return
    if VIEWS[name].shift and not fake_clock:
        pytest.skip("no C compiler to fake a clock with")
    if VIEWS[name].within and not is_possible(name, str(tmp_path / "boot_id")):
        pytest.skip("this system lets nobody make such a view")


@pytest.fixture
def start(agents: Start, backend: Backend, fake_clock: str | None, tmp_path: Path) -> Callable[..., Agent]:
    """Start an agent on the ledger that has the view of that name; None: it sees what we see."""

    def start(name: str | None, ttl: float = 60.0) -> Agent:
        view = View() if name is None else VIEWS[name]
        environment = {"BOOT_ID": str(tmp_path / "boot_id")}
        if view.shift and fake_clock:
            environment |= {"LD_PRELOAD": fake_clock, "FAKE_CLOCK": str(view.shift)}
        return agents(backend.url, str(ttl), within=view.within, **environment)

    return start


@pytest.mark.parametrize("asker", [None, "same"])
@pytest.mark.parametrize("holder", VIEWS)
def test_of_two_jobs_that_do_not_fit_together_one_is_refused(
    start: Callable[..., Agent], holder: str, asker: str | None
) -> None:
    """Whichever of them has the other view, or both have one like it."""
    both = [start(holder), start(holder if asker else None)]
    for first, second in (both, both[::-1]):
        run = f"{first.pid} {second.pid} {both.index(first)}"
        assert first.ask("reserve", run=run, amount=80, available=120)
        assert second.ask("sweep") == 0
        assert not second.ask("reserve", run=f"not {run}", amount=80, available=120)
        assert first.ask("renew") == []
        assert second.ask("sweep") == 0
        assert first.ask("release", run=run)


@pytest.mark.parametrize("holder", VIEWS)
def test_a_hold_whose_owner_nobody_can_see_comes_free(start: Callable[..., Agent], holder: str) -> None:
    """Not before the lease has ended, and by the second look, a lease after the first, if no clock is shared."""
    ttl = 1.0
    gone, asker = start(holder, ttl), start(None, ttl)
    assert gone.ask("reserve", run="gone", amount=80)
    assert asker.ask("sweep") == 0
    gone.kill()
    killed = time.monotonic()
    while not asker.ask("sweep"):
        assert time.monotonic() - killed < 10, "nothing frees it"
        time.sleep(0.05)
    assert asker.ask("reserve", run="next", amount=120, available=120)


@pytest.mark.parametrize("holder", ["a clock of the future"])
def test_a_process_whose_clock_is_faked_frees_nobody_but_the_dead(
    start: Callable[..., Agent], backend: Backend, holder: str
) -> None:
    faked, stopped, dead = start(holder), start(None, 0.2), start(None)
    stopped.ask("reserve", run="stopped", amount=10)
    dead.ask("reserve", run="dead", amount=10)
    dead.kill()
    time.sleep(0.5)
    for _ in range(2):
        freed = faked.ask("sweep")
        if backend.kind == "sqlite":
            assert freed <= 1
        time.sleep(0.3)
    if backend.kind == "sqlite":
        assert stopped.ask("release", run="stopped")
    assert not start(None).ask("release", run="dead")


# SQLite, without namespaces.


on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


class Machine:
    """What processes of the ledger are made to believe of their clocks and boot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def believe(self, clock: Clock | None = None, **boot: str) -> None:

        from creditguard.ledgers import sqlite as module

        self._patch.setattr(module, "clock", lambda: clock or Clock(KERNEL))
        me = this_process()._replace(**boot)
        self._patch.setattr(module, "this_process", lambda: me)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@on_sqlite
def test_a_lease_from_before_the_machine_was_started_anew_is_over(backend: Backend, machine: Machine) -> None:
    """Its time is in the future of a clock that began from nought, and the boot ids say that it did."""
    backend.clock.skew = 1e6
    ledger = backend.client()
    ledger.reserve(Hold("old", "a", 80, "job"), new_owner(boot="before"), available=None, mark=None)
    backend.clock.skew = 0
    assert [live.hold.id for live in ledger.sweep("a")] == ["old"]


@on_sqlite
@pytest.mark.parametrize("boots", [("", ""), ("here", ""), ("", "here"), ("here", "here")])
def test_a_lease_from_the_future_of_who_knows_which_boot_is_watched(
    backend: Backend, machine: Machine, boots: tuple[str, str]
) -> None:
    backend.clock.skew = 1e6
    owner = new_owner(boot=boots[0])
    ledger = backend.client()
    ledger.reserve(Hold("old", "a", 80, "job"), owner, available=None, mark=None)
    backend.clock.skew = 0
    machine.believe(boot=boots[1])
    ledger.close()
    assert list(ledger.sweep("a")) == []
    backend.clock.forward(59)
    assert list(ledger.sweep("a")) == []
    backend.clock.forward(2)
    assert [live.hold.id for live in ledger.sweep("a")] == ["old"]


@on_sqlite
def test_an_owner_on_another_clock_keeps_its_hold_as_long_as_it_renews(backend: Backend, machine: Machine) -> None:
    machine.believe(Clock("its own"))
    owner, theirs = new_owner(), backend.client()
    theirs.reserve(Hold("one", "a", 80, "job"), owner, available=None, mark=None)
    machine.believe()
    ours = backend.client()
    for _ in range(10):
        assert list(ours.sweep("a")) == []
        backend.clock.forward(50)
        machine.believe(Clock("its own"))
        assert theirs.renew(owner, ["one"]) == frozenset()
        machine.believe()
    assert list(ours.sweep("a")) == []
    backend.clock.forward(61)
    assert [live.hold.id for live in ours.sweep("a")] == ["one"]
    assert theirs.renew(owner, ["one"]) == {"one"}


@on_sqlite
def test_a_frozen_clock_renews_too(backend: Backend, machine: Machine) -> None:
    """Its times are always the same; that it renews is counted."""
    frozen = {"skew": lambda: -time.clock_gettime(time.CLOCK_MONOTONIC)}
    machine.believe(Clock("frozen"))
    owner, theirs = new_owner(), backend.client(**frozen)
    theirs.reserve(Hold("one", "a", 80, "job"), owner, available=None, mark=None)
    machine.believe()
    ours = backend.client()
    for _ in range(5):
        assert list(ours.sweep("a")) == []
        backend.clock.forward(50)
        machine.believe(Clock("frozen"))
        theirs.renew(owner, ["one"])
        machine.believe()


@on_sqlite
def test_watchers_on_different_clocks_do_not_disturb_each_other(backend: Backend, machine: Machine) -> None:
    machine.believe(Clock("its own"))
    ledger = backend.client()
    ledger.reserve(Hold("one", "a", 80, "job"), new_owner(), available=None, mark=None)
    for name in ("x", "y", "x", "y"):
        machine.believe(Clock(name))
        assert list(ledger.sweep("a")) == []
        backend.clock.forward(20)
    assert [live.hold.id for live in ledger.sweep("a")] == ["one"]
    ledger.settle("last", "a", {})
    with ledger._verb() as sql:
        assert sql.execute("SELECT count(*) FROM watches").fetchall() == [(0,)]


@on_sqlite
def test_a_reading_is_not_lent_to_another_boot_or_from_a_clock_that_is_not_known(
    backend: Backend, machine: Machine
) -> None:
    for other in ({"boot": "before"}, {"boot": ""}, {"clock": Clock("its own")}, {"clock": Clock("")}):
        name = repr(other)
        ledger = backend.client()
        machine.believe(**other)  # type: ignore[arg-type]
        assert ledger.recent(f"claimed {name}", max_age=60, claim=60) is True
        ledger.publish(name, READING)
        ledger.close()
        machine.believe()
        assert ledger.recent(f"claimed {name}", max_age=60, claim=60) is True
        assert ledger.recent(name, max_age=60, claim=60) is True
        assert ledger.recent(name, max_age=60, claim=60) is False
        ledger.publish(name, READING)
        assert ledger.recent(name, max_age=60, claim=60) == READING
        ledger.close()
        machine.believe(**other)  # type: ignore[arg-type]
        assert ledger.recent(name, max_age=60, claim=60) is True


# PostgreSQL: the server's clock is set.


on_postgres = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


@pytest.fixture
def clock(backend: Backend) -> ServerClock:
    assert isinstance(backend.clock, ServerClock)
    return backend.clock


HOURS = [3 * 3600, -3 * 3600, 90, -90]


@on_postgres
@pytest.mark.parametrize("jump", HOURS)
def test_a_servers_clock_that_is_set_takes_no_hold_away(backend: Backend, clock: ServerClock, jump: float) -> None:
    ledger, owner = backend.client(), new_owner()
    ledger.reserve(Hold("one", "a", 80, "job"), owner, available=None, mark=None)
    backend.clock.forward(15)
    clock.jump(jump)
    assert list(ledger.sweep("a")) == []
    backend.clock.forward(10)
    assert list(ledger.sweep("a")) == []
    assert ledger.renew(owner, ["one"]) == frozenset(), "and it has lost nothing"
    for _ in range(5):
        backend.clock.forward(20)
        assert list(ledger.sweep("a")) == []
        assert ledger.renew(owner, ["one"]) == frozenset()
    backend.clock.forward(61)
    assert [live.hold.id for live in ledger.sweep("a")] == ["one"]


@on_postgres
@pytest.mark.parametrize("jump", HOURS)
def test_after_a_servers_clock_was_set_the_dead_are_freed_a_lease_later(
    backend: Backend, clock: ServerClock, jump: float
) -> None:
    ledger = backend.client()
    ledger.reserve(Hold("one", "a", 80, "job"), new_owner(), available=None, mark=None)
    clock.jump(jump)
    assert list(ledger.sweep("a")) == []
    backend.clock.forward(61)
    assert [live.hold.id for live in ledger.sweep("a")] == ["one"]


@on_postgres
@pytest.mark.parametrize("jump", HOURS)
def test_who_has_never_seen_the_server_does_not_trust_a_clock_that_its_own_contradicts(
    backend: Backend, clock: ServerClock, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, owner = backend.client(), new_owner()
    there.reserve(Hold("one", "a", 80, "job"), owner, available=None, mark=None)
    clock.jump(jump)
    newcomer = backend.client()
    look = newcomer._look  # type: ignore[union-attr]
    monkeypatch.setattr(newcomer, "_look", lambda: {**look(), "clock": "newcomer"})
    assert list(newcomer.sweep("a")) == []
    assert there.renew(owner, ["one"]) == frozenset()
    backend.clock.forward(50)
    assert list(newcomer.sweep("a")) == []
    backend.clock.forward(20)
    assert [live.hold.id for live in newcomer.sweep("a")] == ["one"]


@on_postgres
def test_who_has_never_seen_the_server_frees_at_once_what_both_clocks_call_over(
    backend: Backend, clock: ServerClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine of which each job has a new one: the hold of a job that died on another of them must not stay for ever."""
    backend.client().reserve(Hold("one", "a", 80, "job"), new_owner(), available=None, mark=None)
    backend.clock.forward(61)
    newcomer = backend.client()
    look = newcomer._look  # type: ignore[union-attr]
    monkeypatch.setattr(newcomer, "_look", lambda: {**look(), "clock": "newcomer"})
    assert [live.hold.id for live in newcomer.sweep("a")] == ["one"]


@on_postgres
def test_a_machine_that_slept_or_whose_wall_clock_is_wrong_goes_by_the_server(
    backend: Backend, clock: ServerClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = backend.client()
    look = ledger._look  # type: ignore[union-attr]
    monkeypatch.setattr(ledger, "_look", lambda: {**look(), "clock": "wrong", "wall": 0.0})
    owner = new_owner()
    ledger.reserve(Hold("one", "a", 80, "job"), owner, available=None, mark=None)
    backend.clock.forward(61)
    assert [live.hold.id for live in ledger.sweep("a")] == ["one"]
    assert ledger.renew(owner, ["one"]) == {"one"}
