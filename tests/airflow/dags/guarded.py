"""Guarded tasks of every form."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import Asset, BaseHook, dag, task

import creditguard
import creditguard.airflow
from creditguard import current_run
from creditguard.airflow import CreditGateOperator

START = {"start_date": datetime(2026, 1, 1), "catchup": False}
POKE = float(os.environ.get("CREDITGUARD_TEST_POKE", "0.2"))
TIMEOUT = float(os.environ.get("CREDITGUARD_TEST_TIMEOUT", "30"))
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=0.2)}


@dag(schedule=None, **START)
def decorated():
    @task.credit_guard(budget="{{ dag_run.conf['budget'] }}", **RETRIES)
    def enrich(rows: int, ti=None) -> str:
        """Spends a credit a row."""
        print("the key is", BaseHook.get_connection("apimall_default").password)
        current_run().record(rows)
        return f"{rows} rows, try {ti.try_number}"

    enrich(3)


@dag(schedule=None, **START)
def decorated_fails():
    @task.credit_guard(budget=10, retries=0)
    def enrich():
        raise ValueError("the job's own")

    enrich()


@dag(schedule=None, **START)
def decorated_too_slow():
    @task.credit_guard(budget=10, retries=0, execution_timeout=timedelta(seconds=0.5))
    def enrich():
        time.sleep(20)

    enrich()


@dag(schedule=None, **START)
def decorated_stopped():
    @task.credit_guard(budget=2, on_overrun="stop", **RETRIES)
    def enrich():
        run = current_run()
        for _ in range(5):
            run.check()
            run.record(1)

    enrich()


@dag(schedule=None, **START)
def decorated_by_arguments():
    @task.credit_guard(budget=lambda rows: 2 * rows, name="by-rows", keep="{{ 90 - 5 }}", labels={"team": "ml"})
    def enrich(rows: int) -> int:
        return rows

    enrich(7)


@dag(schedule=None, **START)
def mapped():
    @task.credit_guard(budget="{{ 10 * (ti.map_index + 1) }}", retries=0)
    def enrich(rows: int) -> int:
        current_run().record(rows)
        return rows

    enrich.expand(rows=[1, 2, 3])


def short(on_short: str, name: str | None = None, **how: object):
    @dag(dag_id=f"decorated_{name or on_short}", schedule=None, **START)
    def pipeline():
        budget = "{{ dag_run.conf['budget'] }}"

        @task.credit_guard(budget=budget, on_short=on_short, poke_interval=POKE, timeout=TIMEOUT, **how, **RETRIES)
        def enrich() -> str:
            return "ran"

        @task
        def behind(what: str) -> str:
            return what

        behind(enrich())

    return pipeline()


for each in ("fail", "skip", "retry", "reschedule", "warn"):
    globals()[f"decorated_{each}"] = short(each)
decorated_deferred = short("reschedule", "deferred", deferrable=True)


@dag(schedule=None, **START)
def decorated_with_assets():
    @task.credit_guard(budget=10, outlets=[Asset("enriched")])
    def enrich(outlet_events=None) -> None:
        outlet_events[Asset("enriched")].extra["rows"] = 3
        current_run().record(3)

    enrich()


@dag(schedule=None, default_args={"apimall_conn_id": "apimall_default", "keep": 30, "on_short": "skip"}, **START)
def by_default_args():
    @task.credit_guard(budget=80)
    def enrich() -> None: ...

    CreditGateOperator.partial(task_id="gates", labels={"team": "ml"}).expand(budget=[10, 80])
    enrich()


@dag(schedule=None, **START)
def decorated_without_budget():
    @task.credit_guard(**RETRIES)
    def enrich() -> None: ...

    @task(**RETRIES)
    def plain() -> None:
        with creditguard.guard("job"):
            pass

    @task(**RETRIES)
    def nonsense(budget: str) -> None:
        with creditguard.airflow.guard("job", budget=budget):
            pass

    enrich()
    plain()
    nonsense("many")


@dag(schedule=None, **START)
def decorated_async():
    @task.credit_guard(budget="{{ dag_run.conf['budget'] }}", **RETRIES)
    async def enrich() -> str:
        await asyncio.sleep(0)
        current_run().record(4)
        return "awaited"

    enrich()


@dag(schedule=None, **START)
def with_block():
    @task(**RETRIES)
    def enrich(budget: str) -> dict:
        print("the key is", os.environ["APIMALL_API_KEY"])
        with creditguard.airflow.guard(budget=budget, labels={"team": "ml"}) as run:
            print("and in the run", os.environ["APIMALL_API_KEY"])
            run.record(5)
        return run.report.to_dict()

    enrich("{{ dag_run.conf['budget'] }}")


@dag(schedule=None, **START)
def with_connection():
    @task(**RETRIES)
    def enrich(budget: str, conn_id: str) -> dict:
        with creditguard.airflow.guard("named", budget=budget, conn_id=conn_id) as run:
            pass
        return run.report.to_dict()

    enrich("{{ dag_run.conf['budget'] }}", "{{ dag_run.conf.get('conn_id', 'apimall_default') }}")


@dag(schedule=None, **START)
def task_over_guard():
    @task(**RETRIES)
    @creditguard.airflow.guard(budget=lambda rows, ti: 10 * rows, conn_id="apimall_default")
    def enrich(rows: int, ti=None) -> str:
        return f"{rows} rows in {ti.task_id}"

    enrich.override(task_id="one")(4)
    enrich.override(task_id="many").expand(rows=[1, 2])


@dag(schedule=None, **START)
def plain_guard():
    """Nothing of creditguard.airflow in sight."""

    @task(**RETRIES)
    @creditguard.guard(budget=60)
    def enrich() -> str:
        return "ran"

    enrich()


for each in (
    decorated,
    decorated_fails,
    decorated_with_assets,
    by_default_args,
    decorated_without_budget,
    decorated_stopped,
    decorated_too_slow,
    decorated_by_arguments,
    mapped,
    decorated_async,
    with_block,
    with_connection,
    task_over_guard,
    plain_guard,
):
    each()
