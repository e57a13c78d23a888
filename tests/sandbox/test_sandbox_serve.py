"""The gateway in the foreground, as a terminal runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import creditguard.sandbox
from creditguard.sandbox import Gateway, serve
from creditguard.sandbox.paths import BALANCES

ROOT = Path(creditguard.sandbox.__file__).parents[2]
PROGRAM = """
import os
from creditguard.sandbox import serve
serve(0, 55, key=os.environ["APIMALL_API_KEY"], announce=lambda g: print(g.url, flush=True))
print("bye")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_told_to_stop_and_puts_the_handlers_back(
    http: httpx.Client, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    seen: list[Gateway] = []

    def announce(gateway: Gateway) -> None:
        headers = {"Authorization": f"Bearer {gateway.key}"}
        answer = http.get(gateway.url + BALANCES, headers=headers)
        assert answer.json()["data"]["credits"] == 7
        seen.append(gateway)
        os.kill(os.getpid(), number)

    serve(0, 7, announce=announce)
    assert len(seen) == 1
    with pytest.raises(httpx.ConnectError):
        http.get(seen[0].url)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert capfd.readouterr() == ("", "")


def test_the_handlers_are_put_back_when_the_port_is_taken(gateway: Gateway) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match="in use"):
        serve(httpx.URL(gateway.url).port or 0)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_of_its_own_ends_cleanly(http: httpx.Client) -> None:
    key = Gateway().key
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PROGRAM],
        env={**os.environ, "APIMALL_API_KEY": key, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        headers = {"Authorization": f"Bearer {key}"}
        assert http.get(url + BALANCES, headers=headers).json()["data"]["credits"] == 55
        process.terminate()  # while a connection is open
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "bye\n", "")
