"""Sensors that wait for a top-up."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.providers.common.compat.sdk import dag, task

from creditguard.airflow import CreditBalanceSensor

POKE = float(os.environ.get("CREDITGUARD_TEST_POKE", "0.3"))


def waiting(name: str, **how: object):
    @dag(dag_id=name, schedule=None, start_date=datetime(2026, 1, 1), catchup=False)
    def pipeline():
        @task
        def behind() -> str:
            return "ran"

        wait = CreditBalanceSensor(
            task_id="wait",
            budget="{{ dag_run.conf['budget'] }}",
            poke_interval=POKE,
            retries=0,
            **{"timeout": 60, **how},
        )
        wait >> behind()

    return pipeline()


sensor_rescheduled = waiting("sensor_rescheduled")
sensor_poking = waiting("sensor_poking", mode="poke")
sensor_deferred = waiting("sensor_deferred", deferrable=True)
sensor_gives_up = waiting("sensor_gives_up", soft_fail=True, timeout=0.5)
