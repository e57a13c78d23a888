"""Flows for test_cancellation.py to kill. They say their run's id on stdout when their guarded part has begun, then wait."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from prefect import flow, task
from prefect.runtime import flow_run

from creditguard import current_run
from creditguard.prefect import guard

SECONDS = float(os.environ["KILLED_AFTER"])


def begun() -> None:
    print(flow_run.id, flush=True)


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
def mapped(number: int) -> None:
    current_run().record(number)
    begun()
    time.sleep(SECONDS)


@flow
def mapped_tasks() -> None:
    mapped.map([1, 2, 3]).wait()


@flow
async def mapped_tasks_async() -> None:
    mapped.map([1, 2, 3]).wait()


@flow
async def mapped_tasks_async2() -> None:
    mapped.map([1, 2, 3])
    await asyncio.sleep(SECONDS)


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind == "async-flow":
        asyncio.run(async_flow())
    elif kind == "am":
        asyncio.run(mapped_tasks_async())
    elif kind == "am2":
        asyncio.run(mapped_tasks_async2())
    elif kind == "deployment":
        sync_flow.serve(name="every-night")
    else:
        {"flow": sync_flow, "task": called_task, "submitted": submitted_task, "mapped": mapped_tasks}[kind]()
