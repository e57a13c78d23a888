"""The package costs next to nothing until a name of it is used."""

from __future__ import annotations

import subprocess
import sys

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


def test_its_names():
    assert dir(creditguard.prefect) == sorted(creditguard.prefect.__all__)
    for name in creditguard.prefect.__all__:
        assert getattr(creditguard.prefect, name)
    assert not hasattr(creditguard.prefect, "nothing")
