"""No key and no password in the variables of the frames that an error shows. Each other error of a reading: conftest.py."""

from __future__ import annotations

import ctypes
import json
import logging
import sys
import threading
import time

import httpx
import pytest
from renderers import RENDERERS, showing
from scripted_server import KEY, balance, never

from creditguard.errors import ConfigurationError, SourceError
from creditguard.sources import transport
from creditguard.sources.api_key import ApiKey
from creditguard.sources.apimall import ApiMall
from creditguard.sources.apimall_checks import check_base_url, check_key
from creditguard.sources.outcomes import Answer, Failure


def _careless(key):
    raise ValueError(len(key))


@pytest.mark.parametrize("name", RENDERERS)
def test_a_frame_that_holds_a_key_is_shown_by_every_renderer(name):
    with pytest.raises(ValueError, match="51") as caught:
        _careless(KEY)
    assert KEY in RENDERERS[name](caught.value.with_traceback(caught.value.__traceback__.tb_next))


@pytest.mark.parametrize("flaw", [" ", "\n", "\0", "\u00e9"])
@pytest.mark.parametrize("use", [ApiMall, check_key, lambda key: ApiMall(ApiKey(key))])
def test_a_key_that_cannot_be_used(use, flaw):
    with pytest.raises(ConfigurationError) as caught:
        use(KEY + flaw)
    assert showing(caught.value, KEY) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://u:hunter2@gateway.example",
        "https://gateway.example?key=hunter2",
        "http://hunter2.example",
        "hunter2",
        "https://hunter2:x",
        "https://[hunter2]",
        "https://hunter2 ",
    ],
)
@pytest.mark.parametrize("use", [lambda url: ApiMall(KEY, url), check_base_url])
def test_a_url_that_cannot_be_used(use, url):
    with pytest.raises(ConfigurationError) as caught:
        use(url)
    assert showing(caught.value, "hunter2") == []
    assert showing(caught.value, KEY) == []


ANSWER = Answer(200, {"x-echo": KEY}, KEY.encode())
VALUES = [ApiMall(KEY), vars(ApiMall(KEY)), ApiKey(KEY), ANSWER, [ANSWER], Failure("why", "network")]


def _fail_with(value):
    raise RuntimeError(type(value).__name__)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_no_renderer_takes_a_value_apart(value):
    with pytest.raises(RuntimeError) as caught:
        _fail_with(value)
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    assert [name for name, render in RENDERERS.items() if KEY in render(error)] == []


class Cancelled(BaseException):
    """What a host raises in one of its threads."""


@pytest.mark.parametrize("kept", [False, True])
def test_a_reading_that_is_cancelled_in_a_thread_of_the_hosts(server, source, kept):
    """By PyThreadState_SetAsyncExc, as task queues do it: it may come up in the middle of httpx."""
    at_it = threading.Event()

    def hang(client, _):
        at_it.set()
        time.sleep(0.3)  # an exception from another thread does not wake a system call
        client.sendall(balance())
        never(client, b"")

    server.script = [balance(), hang] if kept else [hang]
    errors = []

    def work():
        try:
            if kept:
                source.read(5)
            source.read(5)
            time.sleep(0.1)
        except Cancelled as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert at_it.wait(5)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Cancelled))
    thread.join()
    (error,) = errors
    assert error.__context__ is None
    assert showing(error, KEY) == []
    names = []
    shown = error.__traceback__
    while shown:
        names.append(shown.tb_frame.f_globals["__name__"])
        shown = shown.tb_next
    assert not [name for name in names if name.startswith(("http", "h11"))]


def test_a_cancelled_reading_keeps_the_hosts_own_context(source):
    """What was being handled when the reading began is still what the error says it came from."""
    job = ValueError("the job's")

    def cancelled():
        try:
            raise httpx.ReadError(KEY)
        except httpx.ReadError:
            raise Cancelled  # noqa: B904 - as it comes up where httpx handles an error of its own

    source._headers = cancelled
    errors = []

    def work():
        try:
            raise job
        except ValueError:
            try:
                source.read(5)
            except Cancelled as error:
                errors.append(error)

    def kept_first():
        ApiMall.read(ApiMall(KEY, source._url), 5)
        work()

    thread = threading.Thread(target=kept_first)
    thread.start()
    thread.join()
    assert errors[0].__context__ is job


def test_a_bug_in_a_thread_of_ours_is_an_error_of_the_source(source, read, monkeypatch):
    def bug(*_):
        raise RuntimeError(KEY)

    monkeypatch.setattr(transport.httpx.HTTPTransport, "handle_request", bug)
    assert "cannot be asked: RuntimeError" in str(read.fails(source, SourceError))


def test_a_request_is_in_no_log_above_debug_and_its_headers_in_none(source, read, caplog):
    caplog.set_level(logging.DEBUG)
    read.twice(source)
    assert caplog.records
    assert {record.name.partition(".")[0] for record in caplog.records} == {"httpcore"}
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert "Bearer" not in json.dumps([record.getMessage() for record in caplog.records])


def test_no_frame_of_ours_holds_the_key_while_a_request_is_made(server, source, read, monkeypatch):
    """A profiler, or a debugger, looks into the frames of all threads at any instant (`sys._current_frames`)."""
    server.script = [balance()]
    frames = []
    make = httpx.Request

    def looking(*args, **kwargs):
        frame = sys._getframe(1)
        while frame:
            if frame.f_globals["__name__"].startswith("creditguard."):
                frames.append(f"{frame.f_code.co_name}: {frame.f_locals}")
            frame = frame.f_back
        return make(*args, **kwargs)

    monkeypatch.setattr(transport.httpx, "Request", looking)
    read(source)
    assert frames
    assert not [frame for frame in frames if KEY in frame]
