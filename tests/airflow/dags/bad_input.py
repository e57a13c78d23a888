"""One task of every kind, whose budget, keep, account and connection are what the run's conf says."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import dag, task

from creditguard.airflow import CreditBalanceSensor, CreditGateOperator

GIVEN = {
    "budget": "{{ dag_run.conf.get('budget', 1) }}",
    "keep": "{{ dag_run.conf.get('keep', 0) }}",
    "account": "{{ dag_run.conf.get('account', 'team') }}",
    "conn_id": "{{ dag_run.conf.get('conn_id', 'apimall_default') }}",
    "retries": 2,
    "retry_delay": timedelta(seconds=0.2),
}


@dag(schedule=None, start_date=datetime(2026, 1, 1), catchup=False)
def bad_input():
    @task.credit_guard(**GIVEN)
    def guarded() -> None: ...

    guarded()
    CreditGateOperator(task_id="gate", on_short="skip", **GIVEN)
    CreditGateOperator(task_id="gate_that_waits", on_short="reschedule", poke_interval=0.2, timeout=5, **GIVEN)
    CreditBalanceSensor(task_id="deferred", deferrable=True, poke_interval=0.2, timeout=5, **GIVEN)


bad_input()
