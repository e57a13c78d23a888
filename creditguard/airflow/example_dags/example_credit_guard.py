"""Airflow: wait for credits, then guard the tasks that spend them. Copy it into your DAGs folder.

Needs `pip install 'creditguard[airflow]'` and a connection `apimall_default` of type API Mall, with the key as its password.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import dag, task

from creditguard import current_run
from creditguard.airflow import CreditBalanceSensor

CREDITS_PER_ROW = 2


def call_the_api(row: int) -> dict[str, int]:
    """Stands for a request that is paid in credits; API Mall says in its answer how many it took."""
    return {"row": row, "credits_used": 1}


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={"rows_per_batch": 5, "batches": 3},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
)
def nightly_enrich() -> None:
    """Three batches, each of which declares what it may spend."""
    funded = CreditBalanceSensor(
        task_id="funded",
        budget="{{ params.batches * params.rows_per_batch * 2 }}",  # for all of them
        poke_interval=60,
        timeout=6 * 3600,
        deferrable=True,
    )

    @task
    def batches(params: dict[str, int]) -> list[list[int]]:
        size = params["rows_per_batch"]
        return [list(range(size * number, size * (number + 1))) for number in range(params["batches"])]

    @task.credit_guard(budget=lambda rows: CREDITS_PER_ROW * len(rows))
    def enrich(rows: list[int]) -> int:
        for row in rows:
            answer = call_the_api(row)
            current_run().record(answer["credits_used"])
        return len(rows)

    @task
    def total(done: list[int]) -> int:
        return sum(done)

    work = batches()
    funded >> work
    total(enrich.expand(rows=work))


nightly_enrich()
