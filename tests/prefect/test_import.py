"""The package costs next to nothing until a name of it is used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import creditguard.prefect

_CODE = """
import sys, creditguard.prefect
heavy = {"prefect", "pydantic", "httpx", "anyio", "asyncio", "inspect", "logging", "creditguard.guarding.guard"} & sys.modules.keys()
assert not heavy, heavy
from creditguard.prefect import retry_unless_short
assert "prefect" not in sys.modules
"""


def test_importing_it_loads_neither_prefect_nor_the_core():
    subprocess.run([sys.executable, "-c", _CODE], check=True, timeout=60)


@pytest.mark.parametrize("installed", ["2.20.4", "3.0.11", "none"])
def test_a_prefect_that_is_too_old_is_told_when_the_flow_is_loaded(tmp_path, installed):
    """By the metadata of a distribution that comes first on the path; or by a Python without site-packages."""
    if installed != "none":
        (tmp_path / f"prefect-{installed}.dist-info").mkdir()
        (tmp_path / f"prefect-{installed}.dist-info" / "METADATA").write_text(f"Name: prefect\nVersion: {installed}\n")
    checkout = Path(creditguard.__file__).parents[1]
    command = [sys.executable, *(["-S"] if installed == "none" else []), "-c", "from creditguard.prefect import guard"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(checkout)])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    last = done.stderr.splitlines()[-1]
    assert re.search(rf"creditguard.prefect needs Prefect 3\.\d or later, and {installed} is installed", last), (
        done.stderr
    )


def test_its_names():
    assert dir(creditguard.prefect) == sorted(creditguard.prefect.__all__)
    for name in creditguard.prefect.__all__:
        assert getattr(creditguard.prefect, name)
    assert not hasattr(creditguard.prefect, "nothing")
