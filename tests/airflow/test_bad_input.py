"""What cannot be meant, in a template or in a connection: one sentence, no retries, and nothing is asked of the gateway.

Which connections those are is shown in test_provider.py, which numbers in the tests of the rules.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import creditguard

WRONG = {
    "a template that renders to nonsense": (
        {"budget": "many"},
        "budget must be a number of credits such as 500 or 0.25, not 'many'",
    ),
    "a template that renders to nothing": ({"account": ""}, "account must be a name of 1 to 200 printable characters"),
    "a connection of another type": (
        {"conn_id": "of_another_type"},
        "connection 'of_another_type' is of type 'http'; it must be one of type API Mall ('apimall')",
    ),
}


@pytest.mark.parametrize(("conf", "sentence"), WRONG.values(), ids=WRONG)
def test_fails_every_kind_of_task_in_a_sentence_without_retries_and_asks_nothing(
    airflow, gateway, events, holds, monkeypatch: pytest.MonkeyPatch, caplog, conf: dict, sentence: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OF_ANOTHER_TYPE", json.dumps({"conn_type": "http", "password": "SECRET"}))
    before = gateway.balance_reads
    result = airflow.run("bad_input", **conf)
    assert set(result.states.values()) == {"failed"}
    assert set(result.tries.values()) == {1}
    assert gateway.balance_reads == before
    assert (events, holds()) == ([], [])
    told = [record for record in caplog.records if record.name == "creditguard"]
    assert [(record.levelname, record.getMessage()) for record in told] == [("ERROR", sentence)] * len(result.states)


def test_an_airflow_that_is_too_old_is_told_in_a_sentence(airflow, tmp_path: Path) -> None:
    """By a provider of Airflow 3.0, which comes first on the path."""
    old = tmp_path / "airflow" / "providers" / "common" / "compat"
    old.mkdir(parents=True)
    (old / "__init__.py").touch()
    (tmp_path / "airflow" / "__init__.py").write_text("__version__ = '3.0.6'")
    (tmp_path / "apache_airflow-3.0.6.dist-info").mkdir()
    (tmp_path / "apache_airflow-3.0.6.dist-info" / "METADATA").write_text("Name: apache-airflow\nVersion: 3.0.6\n")
    path = os.pathsep.join([str(tmp_path), str(Path(creditguard.__file__).parents[1])])
    for load in ("from creditguard.airflow import CreditGateOperator", "import creditguard.airflow.decorators"):
        done = subprocess.run(
            [sys.executable, "-c", load],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"PYTHONPATH": path},
        )
        last = done.stderr.splitlines()[-1]
        assert last.startswith("ImportError: creditguard works in Airflow 2.11, and in 3.1 and later, with "), (
            done.stderr
        )
        assert "this is Airflow 3.0.6" in last
