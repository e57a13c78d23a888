"""Airflow 2: a task that is marked failed while it runs, in a process of its own as the scheduler starts it; and its log file.

Airflow 3 is shown in test_deployed.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.2)


def start(airflow, dag_id: str) -> tuple[str, subprocess.Popen]:
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils import timezone
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunType

    dag = airflow.dag(dag_id)
    dag.sync_to_db()
    SerializedDagModel.write_dag(dag)
    now = timezone.utcnow()
    run = dag.create_dagrun(
        run_type=DagRunType.MANUAL,
        state=DagRunState.RUNNING,
        execution_date=now,
        data_interval=(now, now),
        start_date=now,
    )
    command = ["tasks", "run", dag_id, "enrich", run.run_id, "--local", "--subdir", str(airflow.dags / "scheduled.py")]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "airflow", *command],
        env=os.environ
        | {"AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "1", "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return run.run_id, process


def test_a_task_marked_failed_is_settled(airflow, env_gateway, gateway, holds, gateways) -> None:
    if airflow.version >= (3, 0):
        pytest.skip("for Airflow 2")
    dags = ("killed_decorated", "killed_guard", "killed_plain")
    started = {dag_id: start(airflow, dag_id) for dag_id in dags}
    try:
        wait_until(lambda: len(holds()) == len(dags), 60)
        with airflow.database() as rows:
            for dag_id, (run_id, _) in started.items():
                rows.execute(
                    "update task_instance set state = 'failed' where dag_id = ? and run_id = ?", (dag_id, run_id)
                )
        wait_until(lambda: not holds(), 30)
        for _, process in started.values():
            process.wait(40)
    finally:
        for _, process in started.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    for dag_id, (run_id, _) in started.items():
        (log,) = (airflow.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}").glob("task_id=enrich/attempt=*.log")
        text = log.read_text()
        (finished,) = [line for line in text.splitlines() if "creditguard.finished" in line]
        report = json.loads(finished[finished.index('{"') :])
        assert report["outcome"] == "cancelled"
        assert report["balance_after"] == 100
        assert report["labels"]["dag_id"] == dag_id
        assert ("the key is ***" in text) == (dag_id != "killed_decorated")
