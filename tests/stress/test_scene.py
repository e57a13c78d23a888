"""A holds 80 of 120 credits, and has spent and recorded 70 of them; B needs 30, and 40 are free: it is admitted, whatever the two are.

With holds that do not shrink it is refused: so it is the shrinking that lets it in. As a program, this file spends.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import pytest

from creditguard import InsufficientCredits, guard

REFUSED = "needs 30 credits, 0 are free (50 on the account, 80 held by 1 other)"


@pytest.fixture(params=["shrinks", "does not shrink"])
def shrinks(request, monkeypatch):
    """Whether holds shrink."""
    monkeypatch.setenv("CREDITGUARD_SHRINK", "on" if request.param == "shrinks" else "off")
    return request.param == "shrinks"


@pytest.fixture
def waits(shrinks):
    """Seconds for which B, in a process of its own, waits for A's hold to have shrunk: it may be a second late."""
    return 30 if shrinks else 1.5


def spend(amount):
    """Debit the account, as a job does: by a submit."""
    headers = {"Authorization": f"Bearer {os.environ['APIMALL_API_KEY']}", "Content-Type": "application/json"}
    body = json.dumps({"prompt": "x", "credits": amount}).encode()
    urlopen(Request(f"{os.environ['CREDITGUARD_BASE_URL']}/api/v1/images/generate", body, headers), timeout=10).close()


def first(account, recorded, over):
    with guard("a", budget=80, account=account) as run:
        spend(70)
        run.record(70)
        recorded.set()
        over.wait(60)


def second(account, waits):
    """What is held by others when B is admitted, or why it is refused."""
    try:
        with guard("b", budget=30, account=account, wait=waits, min_interval=0.1) as run:
            return run.held_by_others
    except InsufficientCredits as refused:
        return str(refused)


def test_two_threads(account, shrinks):
    recorded, over = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        job = pool.submit(first, account, recorded, over)
        assert recorded.wait(30)
        answer = pool.submit(second, account, 0).result()  # and without waiting: A's process knows what it has recorded
        over.set()
        job.result()
    assert answer == (10 if shrinks else f"b: {REFUSED}")


def ask(account, waits, answers):
    answers.put(second(account, waits))


def test_two_processes(account, shrinks, waits):
    context = multiprocessing.get_context("spawn")
    recorded, over, answers = context.Event(), context.Event(), context.Queue()
    jobs = [
        context.Process(target=first, args=(account, recorded, over)),
        context.Process(target=ask, args=(account, waits, answers)),
    ]
    jobs[0].start()
    assert recorded.wait(30)
    jobs[1].start()
    answer = answers.get(timeout=60)
    over.set()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert answer == (10 if shrinks else f"b: {REFUSED}")


def test_two_shell_commands(account, shrinks, waits, tmp_path):
    command = f"{shlex.quote(sys.executable)} -m creditguard"
    recorded, over = tmp_path / "recorded", tmp_path / "over"
    script = f"""
        {shlex.join([sys.executable, __file__])} 70 && {command} record 70 && touch {recorded} || exit 3
        while [ ! -e {over} ]; do sleep 0.02; done"""
    job = subprocess.Popen(
        [*shlex.split(f"{command} run -q --name a --budget 80 --account {account} -- sh -c"), script]
    )
    try:
        while not recorded.exists():
            with pytest.raises(subprocess.TimeoutExpired):
                job.wait(0.02)
        asks = f"{command} run --name b --budget 30 --account {account} --wait {waits}s --interval 0.1s -- echo ran"
        answer = subprocess.run(shlex.split(asks), capture_output=True, text=True, timeout=60)
    finally:
        over.touch()
        assert job.wait(30) == 0
    assert (answer.returncode, answer.stdout) == ((0, "ran\n") if shrinks else (75, ""))
    if not shrinks:
        assert REFUSED in answer.stderr


if __name__ == "__main__":
    spend(int(sys.argv[1]))
