"""Several processes at one ledger as fast as they can: none starves, and none waits long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from ledger_world import HERE, ROOT, Backend

SECONDS = 1.5


@pytest.mark.parametrize("processes", [4])
def test_processes_are_served_alike(backend: Backend, processes: int) -> None:
    backend.client().mark("a")
    hammers = [
        subprocess.Popen(
            [sys.executable, str(HERE / "hammer.py"), backend.url, str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(processes)
    ]
    for hammer in hammers:
        assert hammer.stdout
        assert hammer.stdout.readline() == "ready\n"
    start = time.monotonic() + 0.1
    answers = []
    for hammer in hammers:
        assert hammer.stdin
        hammer.stdin.write(f"{start}\n")
        hammer.stdin.flush()
    for hammer in hammers:
        with hammer:
            assert hammer.stdout
            answers.append(json.loads(hammer.stdout.readline()))
    counts = [answer["admissions"] for answer in answers]
    waits = [answer["longest_ms"] for answer in answers]
    # The bounds for a quiet machine are 2 and 150 ms; other tests may be running beside this one.
    assert max(counts) <= 2.5 * min(counts), (counts, waits)
    assert max(waits) <= 500, (counts, waits)
