"""Flows for test_cancellation.py to kill. They say their run's id on stdout when their guarded part has begun, then wait."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from prefect import flow, task
from prefect.runtime import flow_run
from prefect.task_runners import ProcessPoolTaskRunner

from creditguard import current_run
from creditguard.prefect import guard

SECONDS = float(os.environ["KILLED_AFTER"])


def begun() -> None:
    os.write(1, f"{flow_run.id}\n".encode())  # in one piece, whichever thread writes it


@task
@guard("killed", budget=50)
def in_a_task() -> None:
    begun()
    time.sleep(SECONDS)


@flow
def sync_flow() -> None:
    with guard("killed", budget=50) as run:
        run.record(8)
        begun()
        time.sleep(SECONDS)


@flow
async def async_flow() -> None:
    async with guard("killed", budget=50) as run:
        run.record(8)
        begun()
        await asyncio.sleep(SECONDS)


@flow
def called_task() -> None:
    in_a_task()


@flow
def submitted_task() -> None:
    in_a_task.submit().wait()


@task
@guard("mapped", budget=20)
def spend(number: int) -> None:
    current_run().record(number)
    begun()
    time.sleep(SECONDS)


@flow
def mapped() -> None:
    spend.map([1, 2, 3]).wait()


@flow
def abandoned() -> None:
    spend.map([1, 2, 3])
    time.sleep(1)  # so that all of them have begun


@flow
async def mapped_async() -> None:
    spend.map([1, 2, 3])
    await asyncio.sleep(SECONDS)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=3))
def processes() -> None:
    spend.map([1, 2, 3]).wait()


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind == "deployment":
        sync_flow.serve(name="every-night")
    elif kind in {"async_flow", "mapped_async"}:
        asyncio.run(globals()[kind]())
    else:
        globals()[kind]()
