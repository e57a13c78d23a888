"""Who is alive, who is dead, and of whom that cannot be said from here."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from creditguard.process import identity as processes
from creditguard.process.identity import KERNEL, Clock, clock, is_dead, this_process
from creditguard.rules.values import Owner

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def owner_of(pid: int) -> Owner:
    """The owner that a process on this host is to others."""
    return this_process()._replace(id="other", pid=pid, started=processes._stat(str(pid))[2])


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_is_itself_for_life() -> None:
    me = this_process()
    assert me is this_process()
    assert me.pid == os.getpid()
    assert not is_dead(me)
    assert not is_dead(me._replace(id="as others know it"))


@linux
def test_who_a_process_is_is_not_settled_while_it_cannot_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is remembered for life: nobody would see that a process without a boot has died."""
    me = this_process()
    monkeypatch.setattr(processes, "_this", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            this_process()
        assert clock() == Clock("")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert this_process()._replace(id=me.id) == me


def test_a_fork_is_another_owner() -> None:
    me = this_process()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        own = this_process()
        os.write(write, f"{own.id} {own.pid} {own.host} {own.boot}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    identity, pid, host, boot = os.read(read, 1000).decode().split(" ")
    os.close(read)
    os.close(write)
    assert identity != me.id
    assert (int(pid), host, boot) == (child, me.host, me.boot)
    assert this_process() is me


@linux
def test_a_live_process_is_not_dead_and_a_gone_one_is() -> None:
    with sleeper() as process:
        owner = owner_of(process.pid)
        assert not is_dead(owner)
        process.send_signal(signal.SIGSTOP)
        until(lambda: processes._stat(str(process.pid))[0] == "T")
        assert not is_dead(owner)
        process.kill()
        process.wait()
        assert is_dead(owner)


@linux
def test_a_killed_child_that_nobody_has_reaped_is_dead() -> None:
    with sleeper() as process:
        owner = owner_of(process.pid)
        process.kill()
        until(lambda: processes._stat(str(process.pid))[0] == "Z")
        assert is_dead(owner)


@linux
def test_a_pid_that_was_given_to_another_process_is_dead() -> None:
    with sleeper() as process:
        owner = owner_of(process.pid)
        assert is_dead(owner._replace(started=str(int(owner.started) - 1)))
        assert not is_dead(owner._replace(started=""))


@linux
def test_a_process_whose_main_thread_has_ended_is_not_dead() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        threading.Thread(target=lambda: os.read(read, 1) and os._exit(0)).start()
        ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # exit of this thread alone
        os._exit(1)
    try:
        until(lambda: processes._stat(str(child))[0] == "Z")
        assert not is_dead(owner_of(child))
    finally:
        os.write(write, b"x")
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


@linux
@pytest.mark.parametrize("name", [") Z 1 1", "a) b) (c", "new\nline"])
def test_the_name_of_a_command_does_not_matter(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([program, "60"])
    try:
        until(lambda: processes._stat(str(process.pid))[0] == "S")
        assert not is_dead(owner_of(process.pid))
    finally:
        process.kill()
        process.wait()


def test_whoever_cannot_be_seen_is_not_dead() -> None:
    gone = this_process()._replace(id="other", pid=2**22 + 1, started="1")
    assert is_dead(gone)
    assert not is_dead(gone._replace(host="elsewhere"))
    assert not is_dead(gone._replace(host=f"{gone.host}@pid4026532198"))
    assert not is_dead(gone._replace(boot="another"))
    assert not is_dead(gone._replace(boot=""))
    assert not is_dead(gone._replace(pid=0))
    assert not is_dead(gone._replace(pid=-1))


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A /proc of our own, and a process that looks at itself anew in it."""
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    monkeypatch.setattr(processes, "_this", None)
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot-1\n")
    (tmp_path / "self/stat").write_text(f"{os.getpid()} (python) R {'0 ' * 16} 1 0 4711 0 0\n")
    yield tmp_path
    processes._forget()


def test_a_hidden_process_is_not_dead(proc: Path) -> None:
    """With hidepid, /proc does not show the processes of others."""
    me = this_process()
    with sleeper() as process:
        assert not is_dead(me._replace(id="other", pid=process.pid))
    assert is_dead(me._replace(id="other", pid=process.pid))


@pytest.mark.parametrize("stat", ["", "garbage", "12 (x) S", "12 (x) S a b c"])
def test_an_entry_that_is_not_understood_says_nothing(proc: Path, stat: str) -> None:
    me = this_process()
    (proc / "12").mkdir()
    (proc / "12/stat").write_text(stat)
    assert not is_dead(me._replace(id="other", pid=12))


def test_namespaces_are_part_of_the_host(proc: Path) -> None:
    (proc / "self/ns/pid").symlink_to("pid:[4026532198]")
    (proc / "self/ns/time").symlink_to("time:[4026531834]")
    me = this_process()
    assert (me.host, me.boot) == (f"{os.uname().nodename}@pid4026532198", "boot-1")


def test_a_proc_of_another_namespace_is_not_believed(proc: Path) -> None:
    (proc / "self/stat").write_text(f"{os.getpid() + 1} (python) R {'0 ' * 16} 1 0 4711 0 0\n")
    me = this_process()
    assert me.boot == ""
    assert not is_dead(me._replace(id="other", pid=2**22 + 1))


def test_without_proc_nobody_is_dead_unless_the_boot_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PROC", str(tmp_path / "none"))
    gone = this_process()._replace(id="other", pid=2**22 + 1)
    try:
        processes._forget()
        assert this_process().boot == ""
        assert not is_dead(gone._replace(boot=""))
        monkeypatch.setattr(processes, "_boot_session", lambda: gone.boot)
        processes._forget()
        assert this_process().boot == gone.boot
        assert is_dead(gone)
        assert not is_dead(gone._replace(pid=os.getppid()))
    finally:
        processes._forget()


# Clocks.


@pytest.fixture
def clocks(proc: Path) -> Path:
    """A /proc in which all is known of this process's clocks."""
    for kind in ("time", "time_for_children"):
        (proc / "self/ns" / kind).symlink_to("time:[4026531834]")
    (proc / "self/timens_offsets").write_text("monotonic           0         0\nboottime            0         0\n")
    (proc / "uptime").write_text(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.2f} 1.00\n")
    return proc


@linux
def test_the_kernels_clock_less_the_shift_of_a_time_namespace(clocks: Path) -> None:
    assert clock() == Clock(KERNEL, 0.0, 0.0)
    (clocks / "self/timens_offsets").write_text("monotonic 4 500000000\nboottime 0 250000000\n")
    assert clock() == Clock(KERNEL, 4.5, 0.25)


@linux
def test_without_time_namespaces_there_is_one_clock(clocks: Path) -> None:
    for name in ("self/ns/time", "self/timens_offsets"):
        (clocks / name).unlink()
        assert clock() == Clock(KERNEL)


@linux
@pytest.mark.parametrize("how", ["another namespace for children", "offsets that are not understood", "no /proc"])
def test_who_cannot_tell_how_its_clock_is_shifted_has_one_of_its_own(clocks: Path, how: str) -> None:
    this_process()
    if how == "no /proc":
        shutil.rmtree(clocks)
    elif how.startswith("offsets"):
        (clocks / "self/timens_offsets").write_text("monotonic x y\n")
    else:
        (clocks / "self/ns/time_for_children").unlink()
        (clocks / "self/ns/time_for_children").symlink_to("time:[4026532198]")
    assert clock() == Clock(this_process().id)


@linux
def test_a_clock_that_the_kernel_contradicts_is_not_relied_on(clocks: Path) -> None:
    for uptime in ("5.00 1.00", "99999999.00 1.00", "", "garbage"):
        (clocks / "uptime").write_text(uptime)
        assert clock() == Clock("")
    (clocks / "uptime").unlink()
    assert clock() == Clock(KERNEL), "a hidden one contradicts nobody"


def test_who_a_process_is_loads_nothing() -> None:
    code = "import sys, creditguard.process, creditguard.rules.values; before = set(sys.modules); import creditguard.process.identity as p; p.this_process()"
    code += "; print(sorted(set(sys.modules) - before - {'creditguard.process.identity'}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
