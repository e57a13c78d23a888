"""A pytest plugin: installing creditguard gives your tests the fixture `credit_gateway`.

    import creditguard
    import pytest

    def test_the_nightly_job_stops_when_credits_are_short(credit_gateway):
        credit_gateway.set_credits(3)
        with pytest.raises(creditguard.InsufficientCredits):
            nightly_job()
        assert credit_gateway.credits == 3

pytest loads this module in every run on a machine that has creditguard, also in those that never
use it. So it imports nothing but pytest; the gateway is imported when a test asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from creditguard.sandbox import Gateway

__all__ = ["credit_gateway"]


@pytest.fixture
def credit_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway with 120 credits, and an environment that leads creditguard to it.

    The ledger is a file under `tmp_path`. No real credit, key or ledger is within reach: the
    developer's CREDITGUARD_* and APIMALL_* variables are taken away for the time of the test.
    """
    from creditguard.sandbox.gateway import Gateway, environment

    for name in list(os.environ):
        if name.upper().startswith(("CREDITGUARD_", "APIMALL_")):
            monkeypatch.delenv(name)
    with Gateway(credits=120) as gateway:
        for name, value in environment(gateway, tmp_path / "ledger.sqlite3", os.environ).items():
            monkeypatch.setenv(name, value)
        yield gateway
