"""Connections: kept, given up, never shared with a forked child, closed at the end; TLS; proxies; threads."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from functools import partial

import httpcore
import pytest
from renderers import showing
from scripted_server import KEY, balance, chunked, drip, hang_up, http, never, refusal

from creditguard.errors import SourceError
from creditguard.sources import transport
from creditguard.sources.apimall import ApiMall


def amounts(balances):
    return [int(found.amount) for found in balances]


def eventually(check):
    until = time.monotonic() + 5
    while not check():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("answer", [balance(), chunked(balance())], ids=["length", "chunks"])
def test_a_connection_is_kept_for_the_next_reading(server, source, read, answer):
    server.script = [answer]
    assert amounts(read.twice(source)) == [120, 120]
    assert server.connections == 1


def test_a_thread_that_finds_a_connection_reads_without_another_thread(source, in_thread, monkeypatch):
    def first_then_alone():
        source.read(5)
        monkeypatch.setattr(transport._thread, "start_new_thread", None)
        return source.read(5)

    assert in_thread.run(first_then_alone).amount == 120


def test_a_connection_that_the_server_gave_up_meanwhile_is_replaced(server, source, read):
    server.script = [lambda client, _: (client.sendall(balance()), hang_up(client, b"")), balance()]
    assert amounts(read.twice(source, lambda: time.sleep(0.05))) == [120, 120]
    assert server.connections == 2


def test_a_connection_that_the_server_gives_up_just_then_is_replaced_at_once(server, source, read):
    server.script = [balance(), hang_up, balance()]
    started = time.monotonic()
    assert amounts(read.twice(source)) == [120, 120]
    assert time.monotonic() - started < 1
    assert server.connections == 2


def test_threads_share_and_do_not_mix_up(server, source):
    server.script = [drip(balance(), every=0.0005)]
    found = []
    threads = [threading.Thread(target=lambda: found.extend([source.read(10), source.read(10)])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert amounts(found) == [120] * 40
    assert server.connections <= 40


def test_a_thread_whose_kept_connection_another_one_took_does_not_connect_itself(
    server, source, in_thread, monkeypatch
):
    """It would be held by a name lookup for as long as that takes."""
    started, go_on = threading.Event(), threading.Event()
    look_up, looked_up_by = socket.getaddrinfo, []
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args: looked_up_by.append(threading.get_ident()) or look_up(*args)
    )

    def slow(client, _):
        started.set()
        go_on.wait(5)
        client.sendall(balance())

    server.script = [balance(), slow, balance(119)]
    read_first = threading.Thread(target=source.read, args=(5,))

    def both():
        source.read(5)
        (gateway,) = transport._process._routes.values()
        kept = gateway._kept
        read_first.start()
        started.wait(5)
        gateway._kept = kept  # as this thread saw it just before the other took it
        gateway._kept[0].get_extra_info = lambda _: False
        try:
            return source.read(5), threading.get_ident()
        finally:
            go_on.set()
            read_first.join()

    found, thread = in_thread.run(both)
    assert found.amount == 119
    assert server.connections == len(looked_up_by) == 2
    assert thread not in looked_up_by


def test_a_reading_within_a_reading_of_the_same_thread(make_server, source, in_thread):
    """As a finalizer makes one."""
    other = ApiMall(KEY, f"http://127.0.0.1:{make_server(balance(119)).port}")
    found = []
    headers = source._headers

    def twice():
        source.read(5), other.read(5)
        source._headers = lambda: found.append(other.read(5)) or headers()
        found.append(source.read(5))

    in_thread.run(twice)
    assert amounts(found) == [119, 120]


def test_a_connection_that_was_idle_for_too_long_is_replaced(server, source, read, monkeypatch):
    monkeypatch.setattr(transport, "KEPT_OPEN", 0.05)
    assert amounts(read.twice(source, lambda: time.sleep(0.1))) == [120, 120]
    assert server.connections == 2


def test_an_answer_that_says_it_is_the_last_one_is(server, source, read):
    server.script = [http(200, {"success": True, "data": {"api_credits": 120}}, Connection="close")]
    assert amounts(read.twice(source)) == [120, 120]
    assert server.connections == 2


FOLLOWING = {
    "a second answer": balance() + balance(999_999),
    "the same answer again": balance() + balance(),
    "a second answer after chunks": chunked(balance()) + balance(999_999),
    "a second answer in chunks": chunked(balance()) + chunked(balance(999_999)),
    "a second answer after chunks with a trailer": chunked(balance())[:-2]
    + b"X: y\r\n\r\n"
    + chunked(balance(999_999)),
    "half of a second answer": balance() + balance(999_999)[:-5],
    "the start of a second answer": balance() + b"HTTP/1.1 200 OK\r\n",
    "rubbish": balance() + b"\r\n",
    "rubbish after chunks": chunked(balance()) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("answer", FOLLOWING.values(), ids=FOLLOWING.keys())
def test_what_follows_an_answer_is_not_taken_for_the_next_one(server, source, read, answer):
    server.script = [answer, balance(119)]
    assert amounts(read.twice(source)) == [120, 119]
    assert server.connections == 2


@pytest.mark.parametrize("answer", FOLLOWING.values(), ids=FOLLOWING.keys())
def test_what_follows_an_answer_is_not_taken_by_a_thread_that_found_the_connection_idle(
    server, source, read, monkeypatch, answer
):
    """It looked just before the connection was closed."""
    monkeypatch.setattr(httpcore.HTTPConnection, "has_expired", lambda _: False)
    server.script = [answer, balance(119)]
    assert amounts(read.twice(source)) == [120, 119]
    assert server.connections == 2


def test_what_follows_a_refusal_is_not_taken_for_the_next_answer(server, source, in_thread):
    server.script = [refusal(503, "internal_error") + balance(999_999), balance(119)]
    assert in_thread(source).amount == 119


def test_what_follows_an_answer_a_little_later_is_not_taken_for_the_next_one(server, source, read):
    def act(client, _):
        client.sendall(balance())
        time.sleep(0.02)
        client.sendall(balance(999_999))

    server.script = [act, balance(119)]
    assert amounts(read.twice(source, lambda: time.sleep(0.1))) == [120, 119]


def test_what_a_burst_of_threads_opened_is_not_kept(server, source):
    many = transport.MOST_KEPT + 4
    together = threading.Barrier(many)
    server.script = [lambda client, _: (together.wait(5), client.sendall(balance()))]
    threads = [threading.Thread(target=source.read, args=(10,)) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.connections == many
    eventually(lambda: server.connections - server.ended <= transport.MOST_KEPT)
    server.script = [balance()]
    assert source.read(5).amount == 120
    assert server.connections == many


def test_close_closes_and_the_next_reading_opens_another(server, source, read):
    assert read(source).amount == 120
    transport.close()
    eventually(lambda: server.ended == 1)
    assert read(source).amount == 120
    assert server.connections == 2


class Interrupted(TimeoutError):
    """What a signal handler of the host may raise: it looks like a network error, and is none."""


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("raised", [Interrupted, KeyboardInterrupt])
def test_what_a_signal_handler_raises_comes_out_unchanged(server, source, kept, raised):
    server.script = [balance(), never, balance(119)] if kept else [never, balance(119)]
    if kept:
        source.read(5)

    def interrupt(*_):
        raise raised

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(raised) as caught:
            source.read(5)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert caught.value.__context__ is None
    assert showing(caught.value, KEY) == []
    assert source.read(5).amount == 119


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
import sys, threading
from creditguard.sources.apimall import ApiMall
source = ApiMall(*sys.argv[1:])
source.read(5)
def twice():
    source.read(5), source.read(5)
thread = threading.Thread(target=twice)
thread.start()
thread.join()
"""


@pytest.fixture
def place(make_server, authority, tmp_path):
    """A server, its URL and the environment that trusts it; over TLS or not."""

    def make(tls):
        server = make_server(balance(), tls="localhost" if tls else None)
        authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
        url = f"https://localhost:{server.port}" if tls else f"http://127.0.0.1:{server.port}"
        return server, url, {"SSL_CERT_FILE": str(tmp_path / "own.pem")}

    return make


@pytest.mark.parametrize("tls", [False, True])
def test_nothing_is_said_when_a_process_ends_with_connections_open(place, tls):
    server, url, environment = place(tls)
    done = run(EVERY_WAY, url, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (server.connections, len(server.requests)) == (1, 3)


HANGING = """
import socket, sys, time
from creditguard.errors import SourceError
from creditguard.sources.apimall import ApiMall
socket.getaddrinfo = lambda *_: time.sleep(20)
try:
    ApiMall(sys.argv[1], "https://slow.example").read(0.1)
except SourceError:
    print("left behind")
"""


def test_a_reading_that_hangs_does_not_keep_a_process_from_ending():
    started = time.monotonic()
    done = run(HANGING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left behind\n", "")
    assert time.monotonic() - started < 10


AT_EXIT = """
import _thread, atexit, queue, sys, threading
from creditguard.sources.apimall import ApiMall
source = ApiMall(*sys.argv[1:])
wanted, found = queue.SimpleQueue(), queue.SimpleQueue()

def serve():
    while True:
        wanted.get()
        found.put(source.read(5).amount)

def ask():
    wanted.put(None)
    return found.get(timeout=10)

_thread.start_new_thread(serve, ())
atexit.register(lambda: print(ask()))
ask()
"""


def test_a_kept_connection_still_serves_at_a_processs_exit(place):
    """Python 3.12 starts no thread then that could open another."""
    server, url, environment = place(tls=False)
    done = run(AT_EXIT, url, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "120\n", "")
    assert server.connections == 1


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


@pytest.mark.parametrize("tls", [False, True])
def test_a_forked_child_reads_on_a_connection_of_its_own(place, tls):
    server, url, environment = place(tls)
    done = run(FORK, url, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(server.requests) == 4
    assert server.connections == 2, "the parent's must still work after the child has ended"


FORK_MEANWHILE = """
import contextlib, os, sys
from creditguard.sources import transport
from creditguard.sources.apimall import ApiMall

def sockets():
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {name for name in found if name.startswith("socket:")}

source = ApiMall(*sys.argv[1:])
source.read(5)
parents = sockets()
assert parents
(gateway,) = transport._process._routes.values()
with gateway.transport._pool._optional_thread_lock:  # as another thread holds it in the middle of a reading
    child = os.fork()
    if not child:
        kept = sockets() & parents
        os._exit(int(source.read(5).amount != 120 or bool(kept)))
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_child_that_is_forked_in_the_middle_of_a_reading_has_no_connection_of_its_parents(place):
    server, url, environment = place(tls=False)
    done = run(FORK_MEANWHILE, url, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.connections == 2


NO_THREADS = """
import resource, sys, threading
from creditguard.errors import SourceError
from creditguard.sources.apimall import ApiMall
source = ApiMall(*sys.argv[1:])
source.read(5)
usual = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, usual[1]))
threading.stack_size(1 << 31)
try:
    source.read(5)
except SourceError as error:
    print(error)
threading.stack_size(0)
resource.setrlimit(resource.RLIMIT_AS, usual)
print(source.read(5).amount)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_thread_that_cannot_be_started_is_an_error_of_that_reading_alone(place):
    server, url, environment = place(tls=False)
    done = run(NO_THREADS, url, **environment)
    assert done.stderr == ""
    assert done.stdout == f"127.0.0.1:{server.port} could not be reached: no thread could be started\n120\n"


@pytest.fixture
def trusted(monkeypatch, authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.usefixtures("trusted")
def test_ssl_cert_file_is_trusted(make_server, read, host):
    server = make_server(balance(), tls=host)
    assert amounts(read.twice(ApiMall(KEY, f"https://{host}:{server.port}"))) == [120, 120]
    assert server.connections == 1


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


def test_without_https_there_is_no_tls_context(source, read, monkeypatch):
    monkeypatch.setattr(ssl, "create_default_context", None)
    monkeypatch.setattr(ssl, "SSLContext", None)
    assert read(source).amount == 120


def test_the_proxy_of_the_environment_is_used(server, read, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://user:hunter2@127.0.0.1:{server.port}")
    assert amounts(read.twice(ApiMall(KEY, "http://127.0.0.1:9"))) == [120, 120]
    assert server.connections == 1
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET http://127.0.0.1:9/api/v1/account/balances HTTP/1.1"
    assert any(line.startswith("Proxy-Authorization: Basic ") for line in lines)


def test_no_proxy_goes_straight_there(server, source, read, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert read(source).amount == 120


def tunnel(client, request, slow=None):
    """A proxy's CONNECT, which drips what the gateway says once `slow` is set."""
    host, _, port = request.split()[1].rpartition(b":")
    with socket.create_connection((host, int(port))) as target:
        client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        back = threading.Thread(target=pump, args=(target, client, slow))
        back.start()
        pump(client, target)
        back.join()


def pump(source, sink, slow=None):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if slow and slow.is_set():
                for byte in data:
                    sink.sendall(bytes([byte]))
                    time.sleep(0.02)
            else:
                sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("proxy_tls", [False, True])
@pytest.mark.usefixtures("trusted")
def test_a_gateway_behind_a_proxy_is_still_known_by_its_certificate(make_server, read, monkeypatch, proxy_tls):
    gateway, proxy = (
        make_server(balance(), tls="localhost"),
        make_server(tunnel, tls="localhost" if proxy_tls else None),
    )
    monkeypatch.setenv("HTTPS_PROXY", f"{'https' if proxy_tls else 'http'}://localhost:{proxy.port}")
    assert amounts(read.twice(ApiMall(KEY, f"https://localhost:{gateway.port}"))) == [120, 120]
    assert KEY.encode() not in b"".join(proxy.requests)
    assert proxy.connections == 1


@pytest.mark.usefixtures("trusted")
def test_two_layers_of_tls_that_drip_do_not_outlast_the_deadline(make_server, in_thread, monkeypatch):
    gateway, slow = make_server(balance(), tls="localhost"), threading.Event()
    proxy = make_server(partial(tunnel, slow=slow), tls="localhost")
    monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
    source = ApiMall(KEY, f"https://localhost:{gateway.port}")
    assert in_thread(source).amount == 120
    slow.set()
    assert "did not answer within" in str(in_thread.fails(source, SourceError, 0.3))


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
    assert showing(error, "hunter2") == []


def test_a_socks_proxy_that_cannot_be_used_is_said_so(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert "socksio" in str(read.fails(ApiMall(KEY, "https://gateway.example"), SourceError))
