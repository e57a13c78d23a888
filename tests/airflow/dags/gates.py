"""A gate of every kind, with a task behind it, and one that would run in any case."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import dag, task

from creditguard.airflow import CreditGateOperator

POKE = float(os.environ.get("CREDITGUARD_TEST_POKE", "0.2"))


@task
def behind() -> str:
    return "ran"


@task(trigger_rule="all_done")
def anyway() -> str:
    return "ran"


def gated(on_short: str, name: str | None = None, **how: object):
    @dag(dag_id=f"gate_{name or on_short}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False)
    def pipeline():
        gate = CreditGateOperator(
            task_id="gate",
            budget="{{ dag_run.conf['budget'] }}",
            on_short=on_short,
            retries=1,
            retry_delay=timedelta(seconds=0.2),
            poke_interval=POKE,
            **{"timeout": 30, **how},
        )
        gate >> behind() >> anyway()

    return pipeline()


for each in ("fail", "skip", "short_circuit", "retry", "reschedule", "warn"):
    globals()[f"gate_{each}"] = gated(each)
gate_deferred = gated("reschedule", "deferred", deferrable=True)
gate_gives_up = gated("reschedule", "gives_up", timeout=0.3)
gate_deferred_gives_up = gated("reschedule", "deferred_gives_up", deferrable=True, timeout=0.5)
