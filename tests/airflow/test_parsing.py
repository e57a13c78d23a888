"""What the provider costs a DAG file that is parsed again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys

_PLAIN = """
from __future__ import annotations
from datetime import datetime
from airflow.providers.common.compat.sdk import dag, task

@dag(schedule=None, start_date=datetime(2026, 1, 1))
def plain():
    @task
    def enrich(rows): ...
    enrich(1)

plain()
"""

_PROVIDER = """
from __future__ import annotations
from datetime import datetime
from airflow.providers.common.compat.sdk import dag, task
from creditguard.airflow import CreditBalanceSensor, CreditGateOperator

@dag(schedule=None, start_date=datetime(2026, 1, 1))
def provider():
    gate = CreditGateOperator(task_id="gate", budget=1)
    wait = CreditBalanceSensor(task_id="wait", budget=1)

    @task.credit_guard(budget="{{ params.budget }}")
    def enrich(rows): ...
    gate >> wait >> enrich(1)

provider()
"""

_GUARD = """
from __future__ import annotations
from datetime import datetime
from airflow.providers.common.compat.sdk import dag, task
from creditguard.airflow import guard

@dag(schedule=None, start_date=datetime(2026, 1, 1))
def guarded():
    @task
    @guard(budget=500, conn_id="apimall_default")
    def enrich(rows): ...
    enrich(1)

guarded()
"""

_MEASURE = """
import json, sys, time
files = json.loads(sys.argv[1])
# The processor that parses has Airflow loaded, and knows its decorators.
from airflow.providers.common.compat.sdk import task, BaseSensorOperator
task.short_circuit
exec(compile(files["plain"], "warm.py", "exec"), {"__name__": "warm"})
spent = {}
for name, text in files.items():
    begin = time.process_time()
    exec(compile(text, f"{name}.py", "exec"), {"__name__": name})
    spent[name] = time.process_time() - begin
heavy = [name for name in sys.modules if name.startswith(("creditguard.sources", "creditguard.ledgers.sqlite", "creditguard.sandbox"))]
print(json.dumps({"spent": spent, "heavy": heavy}))
"""


def test_parsing_reads_no_balance_and_loads_little(airflow, env_gateway, gateway, capsys) -> None:
    """One figure per kind of file, in the parser's own process: the first parse, which pays for the imports."""
    files = {"plain": _PLAIN, "provider": _PROVIDER, "guard": _GUARD}
    before = (env_gateway.balance_reads, gateway.balance_reads)
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _MEASURE, json.dumps(files)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        env=os.environ,
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    with capsys.disabled():
        print(
            "\nparsing took, in processor time,",
            ", ".join(f"{name} {1000 * took:.0f} ms" for name, took in found["spent"].items()),
        )
    assert (env_gateway.balance_reads, gateway.balance_reads) == before
    assert [name for name in found["heavy"] if name not in CHECKS] == []
    assert found["spent"]["provider"] < found["spent"]["plain"] + 1.0
    assert found["spent"]["guard"] < found["spent"]["plain"] + 1.0


CHECKS = {"creditguard.sources", "creditguard.sources.apimall_checks"}  # whether the environment's key is one at all
