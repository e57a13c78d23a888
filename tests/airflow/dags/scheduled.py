"""For the real scheduler: two tasks that fit only one by one, and tasks that are killed while they run."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import BaseHook, dag, task

import creditguard
import creditguard.airflow

FOLDER = Path(os.environ.get("CREDITGUARD_TEST_FOLDER", "."))
START = {"start_date": datetime(2026, 1, 1), "catchup": False}


def until_released() -> None:
    """Until the test says so, by a file."""
    release = FOLDER / "release"
    give_up = time.monotonic() + 240
    while not release.exists() and time.monotonic() < give_up:
        time.sleep(0.2)


@dag(schedule=None, **START)
def pair():
    @task.credit_guard(budget=60, retries=0)
    def enrich(number: int) -> int:
        until_released()
        return number

    enrich.expand(number=[1, 2])


def crowd(name: str, **how: object):
    @dag(dag_id=name, schedule=None, **START)
    def pipeline():
        @task.credit_guard(budget=45, retries=2, on_short="reschedule", timeout=200, **how)
        def enrich(number: int) -> int:
            time.sleep(4)
            return number

        enrich.expand(number=[1, 2, 3, 4])

    return pipeline()


crowd_deferred = crowd("crowd_deferred", deferrable=True, poke_interval=2)
crowd_rescheduled = crowd("crowd_rescheduled", deferrable=False, poke_interval=30)


@dag(schedule=None, **START)
def interrupted():
    """Its first try lasts until somebody ends it."""

    @task.credit_guard(budget=60, retries=1, retry_delay=timedelta(seconds=1))
    def enrich(ti=None) -> None:
        (FOLDER / f"{ti.run_id}.pid").write_text(str(os.getpid()))
        time.sleep(300 if ti.try_number == 1 else 0)

    enrich()


@dag(schedule=None, **START)
def killed_decorated():
    @task.credit_guard(budget=3, retries=0)
    def enrich() -> None:
        time.sleep(300)

    enrich()


@dag(schedule=None, **START)
def killed_guard():
    @task(retries=2)
    def enrich() -> None:
        with creditguard.airflow.guard(budget=4, conn_id="apimall_default"):
            print("the key is", BaseHook.get_connection("apimall_default").password)
            time.sleep(300)

    enrich()


@dag(schedule=None, **START)
def killed_plain():
    @task(retries=0)
    @creditguard.guard(budget=5)
    def enrich() -> None:
        print("the key is", os.environ["APIMALL_API_KEY"])
        time.sleep(300)

    enrich()


for each in (pair, interrupted, killed_decorated, killed_guard, killed_plain):
    each()
