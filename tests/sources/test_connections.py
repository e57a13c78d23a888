"""Connections: kept, given up, never shared with a forked child, closed with their event loop; TLS; proxies."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback

import pytest
import trio
from scripted_server import KEY, balance, drip, hang_up, http, never

from creditguard.errors import SourceError
from creditguard.sources import connection
from creditguard.sources.apimall import ApiMall


def test_a_connection_is_kept_for_the_next_reading(server, source, read):
    assert [found.amount for found in read.twice(source)] == [120, 120]
    assert server.connections == 1


def test_a_connection_that_the_server_gave_up_meanwhile_is_replaced(server, source, read):
    server.script = [lambda client, _: (client.sendall(balance()), hang_up(client, b"")), balance()]
    assert [found.amount for found in read.twice(source, lambda: time.sleep(0.05))] == [120, 120]
    assert server.connections == 2


def test_a_connection_that_the_server_gives_up_just_then_is_replaced_at_once(server, source, read):
    server.script = [balance(), hang_up, balance()]
    started = time.monotonic()
    assert [found.amount for found in read.twice(source)] == [120, 120]
    assert time.monotonic() - started < 1
    assert server.connections == 2


def test_threads_share_and_do_not_mix_up(server, source):
    server.script = [drip(balance(), every=0.0005)]
    found = []
    threads = [threading.Thread(target=lambda: found.append(source.read(10).amount)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [120] * 20
    assert server.connections <= 20


def test_a_connection_that_was_idle_for_too_long_is_replaced(server, source, read, monkeypatch):
    monkeypatch.setattr(connection, "KEPT_OPEN", 0.05)
    assert [found.amount for found in read.twice(source, lambda: time.sleep(0.1))] == [120, 120]
    assert server.connections == 2


def test_an_answer_that_says_it_is_the_last_one_is(server, source, read):
    server.script = [http(200, {"success": True, "data": {"api_credits": 120}}, Connection="close")]
    assert [found.amount for found in read.twice(source)] == [120, 120]
    assert server.connections == 2


def test_what_a_burst_of_threads_opened_is_not_kept_for_long(server, source, monkeypatch):
    monkeypatch.setattr(connection, "KEPT_OPEN", 0.5)
    many = connection.MOST_KEPT + 4
    together = threading.Barrier(many)
    server.script = [lambda client, _: (together.wait(5), client.sendall(balance()))]
    threads = [threading.Thread(target=source.read, args=(10,)) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    idle = connection._process.gateway(source._request)._idle
    assert server.connections == many
    assert 1 <= len(idle) <= connection.MOST_KEPT
    server.script = [balance()]
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        source.read(5)
        time.sleep(0.02)
    assert len(idle) == 1
    assert server.connections == many


def test_connections_in_use_are_closed_when_their_answer_is_there(source):
    source.read(5)
    gateway = connection._process.gateway(source._request)
    lent = gateway.take()
    assert lent.is_idle()
    connection.close()
    assert not lent.is_closed()
    gateway.give_back(lent)
    assert lent.is_closed()
    assert source.read(5).amount == 120


def test_a_forked_child_closes_its_copies_of_connections_in_use_as_well(source):
    source.read(5)
    lent = connection._process.gateway(source._request).take()
    connection._process.reset_after_fork()
    assert lent.is_closed()
    assert source.read(5).amount == 120


def test_tasks_share_and_do_not_mix_up(server, source):
    server.script = [drip(balance(), every=0.0005)]

    async def main():
        return await asyncio.gather(*(source.aread(10) for _ in range(20)))

    assert [found.amount for found in asyncio.run(main())] == [120] * 20


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["headers", "body"])
def test_a_cancelled_reading_leaves_the_connections_in_order(server, source, start):
    def act(client, _):
        client.sendall(start)
        never(client, b"")

    server.script = [act, balance()]

    async def main():
        task = asyncio.create_task(source.aread(5))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert KEY not in "".join(shown.format())
        ((pool, _),) = connection._loop.get().values()
        assert pool.connections == []
        return await source.aread(5)

    assert asyncio.run(main()).amount == 120


def test_a_cancelled_reading_under_trio(server, source):
    server.script = [never, balance()]

    async def main():
        with trio.move_on_after(0.1) as scope:
            await source.aread(5)
        assert scope.cancelled_caught
        return await source.aread(5)

    assert trio.run(main).amount == 120


def test_an_interrupted_reading_leaves_the_connections_in_order(server, source):
    server.script = [never, balance()]
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt) as caught:
            source.read(5)
    finally:
        signal.signal(signal.SIGALRM, before)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert KEY not in "".join(shown.format())
    assert source.read(5).amount == 120


def test_event_loops_do_not_share(server, source):
    for _ in range(3):
        assert asyncio.run(source.aread(5)).amount == 120
    assert server.connections == 3


def run(code, *args, **environment):
    """Run it in a process of its own, where every warning is an error and every unclosed socket is a warning."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, KEY, *args],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": "", **environment},
        check=False,
    )


EVERY_WAY = """
import asyncio, sys, trio
from creditguard.sources.apimall import ApiMall
source = ApiMall(*sys.argv[1:])
source.read(5)
asyncio.run(source.aread(5))
trio.run(source.aread, 5)
"""


@pytest.mark.parametrize("tls", [None, "localhost"])
def test_nothing_is_left_open_when_a_process_or_an_event_loop_ends(make_server, authority, tmp_path, tls):
    server = make_server(balance(), tls=tls)
    authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
    url = f"https://localhost:{server.port}" if tls else f"http://127.0.0.1:{server.port}"
    done = run(EVERY_WAY, url, SSL_CERT_FILE=str(tmp_path / "own.pem"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.connections == 3


FORK = """
import os, sys
from creditguard.sources.apimall import ApiMall
source = ApiMall(*sys.argv[1:])
first = source.read(5)
child = os.fork()
if not child:
    sys.exit(int(source.read(5).amount - source.read(5).amount))
assert os.waitpid(child, 0)[1] == 0
source.read(5)
"""


@pytest.mark.parametrize("tls", [None, "localhost"])
def test_a_forked_child_reads_on_a_connection_of_its_own(make_server, authority, tmp_path, tls):
    server = make_server(balance(), tls=tls)
    authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
    url = f"https://localhost:{server.port}" if tls else f"http://127.0.0.1:{server.port}"
    done = run(FORK, url, SSL_CERT_FILE=str(tmp_path / "own.pem"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(server.requests) == 4
    assert server.connections == 2, "the parent's must still work after the child has ended"


@pytest.fixture
def trusted(monkeypatch, authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.usefixtures("trusted")
def test_ssl_cert_file_is_trusted(make_server, read, host):
    server = make_server(balance(), tls=host)
    assert [found.amount for found in read.twice(ApiMall(KEY, f"https://{host}:{server.port}"))] == [120, 120]
    assert server.connections == 1


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to hash a name")
def test_ssl_cert_dir_is_trusted(make_server, read, monkeypatch, authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
    command = [shutil.which("openssl"), "x509", "-hash", "-noout", "-in", str(tmp_path / "own.pem")]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "own.pem").rename(tmp_path / f"{name}.0")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    server = make_server(balance(), tls="localhost")
    assert read(ApiMall(KEY, f"https://localhost:{server.port}")).amount == 120


def test_a_certificate_that_is_not_trusted_is_final(make_server, read):
    server = make_server(balance(), tls="localhost")
    error = read.fails(ApiMall(KEY, f"https://localhost:{server.port}"), SourceError)
    assert "certificate was not trusted" in str(error)
    assert server.requests == []
    assert server.connections == 1


@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_host_is_not_trusted(make_server, read):
    server = make_server(balance(), tls="elsewhere.example")
    error = read.fails(ApiMall(KEY, f"https://localhost:{server.port}"), SourceError)
    assert "certificate was not trusted" in str(error)
    assert server.requests == []


def test_an_ssl_cert_file_that_cannot_be_read_is_named(read, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    error = read.fails(ApiMall(KEY, "https://127.0.0.1:1"), SourceError)
    assert "SSL_CERT_FILE" in str(error)


def test_a_server_that_does_not_speak_tls(read):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_in_plain():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    client.sendall(http(400, b"plain"))
                    client.recv(65536)
                    client.close()

        server = threading.Thread(target=answer_in_plain)
        server.start()
        error = read.fails(ApiMall(KEY, f"https://127.0.0.1:{listener.getsockname()[1]}"), SourceError)
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    assert "could not be reached: TLS failed" in str(error)


def test_a_tls_handshake_that_hangs_does_not_outlast_the_deadline(read):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error = read.fails(ApiMall(KEY, f"https://127.0.0.1:{listener.getsockname()[1]}"), SourceError, 0.3)
    assert "did not answer within" in str(error)


@pytest.mark.usefixtures("trusted")
def test_a_dripping_server_behind_tls_does_not_outlast_the_deadline(make_server, read):
    server = make_server(drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000), tls="localhost")
    error = read.fails(ApiMall(KEY, f"https://localhost:{server.port}"), SourceError, 0.3)
    assert "did not answer within" in str(error)


def test_the_proxy_of_the_environment_is_used(server, read, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://user:hunter2@127.0.0.1:{server.port}")
    assert read(ApiMall(KEY, "http://127.0.0.1:9")).amount == 120
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET http://127.0.0.1:9/api/v1/account/balances HTTP/1.1"
    assert any(line.startswith("Proxy-Authorization: Basic ") for line in lines)


def test_no_proxy_goes_straight_there(server, source, read, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert read(source).amount == 120


def tunnel(client, request):
    """A proxy's CONNECT."""
    host, _, port = request.split()[1].rpartition(b":")
    with socket.create_connection((host, int(port))) as target:
        client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        back = threading.Thread(target=pump, args=(target, client))
        back.start()
        pump(client, target)
        back.join()


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.usefixtures("trusted")
def test_a_gateway_behind_a_proxy_is_still_known_by_its_certificate(make_server, read, monkeypatch):
    gateway, proxy = make_server(balance(), tls="localhost"), make_server(tunnel)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert [found.amount for found in read.twice(ApiMall(KEY, f"https://localhost:{gateway.port}"))] == [120, 120]
    assert KEY.encode() not in b"".join(proxy.requests)
    assert proxy.connections == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(407, b""), "refused with 407 (through the proxy 127.0.0.1:"),
        (hang_up, "cut off (through the proxy 127.0.0.1:"),
        (never, "did not answer within"),
    ],
)
def test_a_proxy_that_fails_is_named(make_server, read, monkeypatch, answer, words):
    proxy = make_server(answer)
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{proxy.port}")
    error = read.fails(ApiMall(KEY, "https://gateway.example"), SourceError, 2 if answer is not never else 0.3)
    assert words in str(error)
    assert "hunter2" not in str(error)


def test_a_socks_proxy_that_cannot_be_used_is_said_so(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert "socksio" in str(read.fails(ApiMall(KEY, "https://gateway.example"), SourceError))


@pytest.mark.usefixtures("trusted")
def test_without_https_there_is_no_tls_context(source, read, monkeypatch):
    monkeypatch.setattr(ssl, "create_default_context", None)
    assert read(source).amount == 120
