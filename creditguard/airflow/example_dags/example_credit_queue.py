"""Airflow: more batches than the account can carry at once; they wait for their turn, each until its own budget fits.

Copy it into your DAGs folder. Needs `pip install 'creditguard[airflow]'` and a connection `apimall_default` of type API Mall, with
the key as its password.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import Asset, dag, task

from creditguard import current_run
from creditguard.airflow import CreditGateOperator


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={"batches": 4, "budget": 45},
)
def credit_queue() -> None:
    """A gate that says early when not even one batch fits, and batches that take turns."""
    one_fits = CreditGateOperator(task_id="one_fits", budget="{{ params.budget }}", on_short="skip")

    @task
    def batches(params: dict[str, int]) -> list[int]:
        return list(range(params["batches"]))

    # Waits without a worker slot and without using up tries: rescheduled, or (deferrable=True) in the triggerer.
    @task.credit_guard(
        budget="{{ params.budget }}",
        on_short="reschedule",
        poke_interval=60,
        timeout=6 * 3600,
        outlets=[Asset("posters")],
    )
    def draw(batch: int) -> int:
        current_run().record(1)  # what the API said that it took
        return batch

    work = batches()
    one_fits >> work
    draw.expand(batch=work)


credit_queue()
