"""Two jobs of ten images (80 credits) each, on an account with 120 credits, at the same moment. The credits are a sandbox's.

python examples/race.py
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
from apimall import client, generate

from creditguard import InsufficientCredits, guard
from creditguard.sandbox import Gateway

together = threading.Barrier(2)


def looks_first(name: str) -> str:
    """Reads the balance, and starts if that is enough: what a script with `curl` does."""
    with client() as api:
        balance = api.get("/api/v1/account/balances").json()["data"]["api_credits"]
        together.wait()
        done = 0
        try:
            for number in range(10):
                generate(api, f"{name} {number}")
                done += 1
                together.wait()
        except (httpx.HTTPStatusError, threading.BrokenBarrierError):
            together.abort()
            return f"saw {balance} credits, started, died"
    return "finished"


def is_guarded(name: str) -> str:
    """Declares its budget: the ledger admits one of the two."""
    try:
        with guard(name, budget=80) as run, client() as api:
            together.wait()
            for number in range(10):
                run.record(generate(api, f"{name} {number}"))
    except InsufficientCredits as short:
        together.wait()
        return f"refused: needs {short.needs}, {short.has} are free"
    return f"finished, {run.report.credits_consumed} credits"


def race(job: Callable[[str], str]) -> None:
    together.reset()
    with Gateway(credits=120) as gateway, ThreadPoolExecutor() as pool:
        os.environ |= {"CREDITGUARD_BASE_URL": gateway.url, "APIMALL_API_KEY": gateway.key}
        for answer in sorted(pool.map(job, ["posters", "thumbnails"])):
            print(f"  {answer}")
        print(f"  {len(gateway.tasks)} images paid for, {gateway.credits} credits left")


if __name__ == "__main__":
    print("each looks first:")
    race(looks_first)
    print("each is guarded:")
    race(is_guarded)
