"""The tests' own PostgreSQL: for whoever runs the tests, and gone with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import postgres_server
import psycopg
import pytest
from postgres_server import PostgresServer

OWNER = """
import os, sys, time
sys.path.append(sys.argv[1])
from postgres_server import PostgresServer
server = PostgresServer()
if os.fork():
    print(server.url, flush=True)
time.sleep(60)
"""
"""A process that has a server, and a fork that keeps all its pipes open."""


@contextmanager
def owner(**environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", OWNER, str(Path(postgres_server.__file__).parent)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            os.killpg(process.pid, 9)


def folder_of(url: str) -> Path:
    return Path(url.partition("host=")[2])


def server_of(folder: Path) -> int:
    return int((folder / "postmaster.pid").read_text().split()[0])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("not within 20 s")


def test_tests_that_are_killed_leave_no_server_and_no_folder() -> None:
    with owner() as (process, url):
        folder = folder_of(url)
        server = server_of(folder)
        process.kill()
        wait_until(lambda: not folder.parent.exists())
        assert is_gone(server)


def test_a_long_temporary_folder_leaves_room_for_the_socket(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with owner(TMPDIR=str(long)) as (_, url), psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


def test_it_is_not_root_and_lets_nobody_else_in(own_server: PostgresServer) -> None:
    folder = folder_of(own_server.url).stat()
    assert folder.st_uid != 0
    assert folder.st_mode & 0o077 == 0


def test_a_server_that_was_killed_starts_again(own_server: PostgresServer) -> None:
    own_server.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_server.url)
    own_server.start()
    psycopg.connect(own_server.url).close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the keeper must live to the end")
def test_a_keeper_that_is_killed_leaves_no_server(own_server: PostgresServer) -> None:
    folder = folder_of(own_server.url)
    server = server_of(folder)
    own_server._keeper.kill()
    wait_until(lambda: is_gone(server))
    shutil.rmtree(folder.parent)  # nobody else is left to do it
