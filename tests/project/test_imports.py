"""What is loaded when: importing creditguard costs next to nothing, and no heavy library is loaded that a run does not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import creditguard

HEAVY = {"httpx", "httpcore", "pydantic", "pydantic_settings", "structlog", "asyncio", "sqlite3", "ssl", "anyio"}
OTHERS = {"psycopg", "airflow", "prefect", "platformdirs", "typing", "inspect", "dataclasses", "decimal", "argparse"}


def loaded_after(script):
    program = f"import sys; before = set(sys.modules); {script}; after = set(sys.modules); import json; print(json.dumps(sorted(after - before)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_but_itself():
    assert {name for name in loaded_after("import creditguard") if not name.startswith("creditguard")} == {"__future__"}


def test_importing_the_public_names_loads_nothing_heavy():
    names = ", ".join(name for name in creditguard.__all__ if name != "__version__")
    assert loaded_after(f"from creditguard import {names}") & (HEAVY | {"psycopg", "airflow", "prefect"}) == set()


def test_decorating_loads_nothing_heavy_and_reads_no_environment():
    script = "from creditguard import guard\n@guard(budget=5)\ndef job(): pass\n"
    program = "import sys; before = set(sys.modules)\n" + script + "\nprint(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env={"APIMALL_API_KEY": "", "CREDITGUARD_TIMEOUT": "x"}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not any(f"'{name}'" in done.stdout for name in HEAVY)


def test_a_check_loads_neither_pydantic_nor_structlog(credit_gateway):
    script = "from creditguard.cli import main; main(['check', '--budget', '5'])"
    assert (
        loaded_after(script)
        & {"pydantic", "pydantic_settings", "structlog", "platformdirs", "psycopg", "logging.config"}
        == set()
    )


def test_every_public_name_is_there_and_listed():
    for name in creditguard.__all__:
        assert getattr(creditguard, name) is not None
    assert dir(creditguard) == creditguard.__all__
    assert creditguard.__all__ == sorted(creditguard.__all__, key=lambda name: name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        creditguard.nothing  # noqa: B018


def test_module_entry_point():
    done = subprocess.run(
        [sys.executable, "-m", "creditguard", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("creditguard ")


def test_charts_are_loaded_for_the_report_alone_and_then_when_there_is_something_to_draw():
    parsed = "from creditguard.cli.parser import parse; parse(['report']); import creditguard.cli.report, creditguard.cli.history"
    assert not loaded_after(parsed) & {"altair", "vl_convert"}
