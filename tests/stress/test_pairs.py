"""120 credits and two jobs of 80 at once: exactly one is admitted, in each of 50 tries, whatever the two are."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from creditguard import InsufficientCredits, guard

TRIES = 50

pytestmark = pytest.mark.timeout(300)


def attempt(account, both):
    """Try once, together with the other; the one that is admitted stays until both have tried."""
    both.wait(30)
    try:
        with guard("pair", budget=80, account=account):
            both.wait(30)
            return True
    except InsufficientCredits:
        both.wait(30)
        return False


def test_two_threads(account):
    for _ in range(TRIES):
        both = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(attempt, [account] * 2, [both] * 2)) == [False, True]


def test_two_tasks(account):
    async def one(tried, everyone):
        try:
            async with guard("pair", budget=80, account=account):
                tried.append(True)
                if len(tried) == 2:
                    everyone.set()
                await asyncio.wait_for(everyone.wait(), 30)
        except InsufficientCredits:
            tried.append(False)
            everyone.set()

    async def main():
        for _ in range(TRIES):
            tried = []
            everyone = asyncio.Event()
            await asyncio.gather(one(tried, everyone), one(tried, everyone))
            assert sorted(tried) == [False, True]

    asyncio.run(main())


def many(account, both, answers):
    for number in range(TRIES):
        answers.put((number, attempt(account, both)))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_two_processes(account, method):
    context = multiprocessing.get_context(method)
    both, answers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=many, args=(account, both, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    got = [answers.get(timeout=60) for _ in range(2 * TRIES)]
    for process in processes:
        process.join(30)
    for number in range(TRIES):
        assert sorted(admitted for tried, admitted in got if tried == number) == [False, True]


@pytest.mark.stress
def test_two_shell_commands(account, tmp_path):
    """The admitted command stays until the other wrapper has ended; 75 means that the other's first instruction never ran."""

    def command(name, other_done):
        script = f"touch {tmp_path}/{name}; while [ ! -e {other_done} ]; do sleep 0.02; done"
        return [
            sys.executable,
            "-m",
            "creditguard",
            "run",
            "-q",
            "--budget",
            "80",
            "--account",
            account,
            "--",
            "sh",
            "-c",
            script,
        ]

    # Two seconds a try: all of them on the ledger that shell jobs have by default, some on the other.
    for number in range(TRIES if os.environ["CREDITGUARD_LEDGER"].startswith("sqlite") else 5):
        done = [tmp_path / f"{number}-{side}-done" for side in "ab"]

        def run(side, number=number, done=done):
            code = subprocess.run(
                command(f"{number}-{'ab'[side]}", done[1 - side]), capture_output=True, timeout=60
            ).returncode
            done[side].touch()
            return code

        with ThreadPoolExecutor(2) as pool:
            codes = list(pool.map(run, range(2)))
        assert sorted(codes) == [0, 75]
        assert [(tmp_path / f"{number}-{side}").exists() for side in "ab"] == [code == 0 for code in codes]
