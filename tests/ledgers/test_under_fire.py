"""The invariant under fire, and proof that the same fire would find a ledger whose rule is broken. See fire.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from ledger_world import HERE, ROOT, Backend

pytestmark = pytest.mark.stress


def fire(backend: Backend, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "fire.py"), backend.url, *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("rule", ["right", "waiting"])
def test_the_pool_is_never_overdrawn_and_the_totals_are_always_right(backend: Backend, rule: str) -> None:
    figures = fire(backend, "--seconds", "10", "--workers", "8", "--kills", "50", "--rule", rule)
    assert figures["kills"] >= 40, figures
    assert figures["died"] == figures["kills"], f"a worker died by itself: {figures}"
    assert figures["lowest"] >= 0, figures
    assert figures["wrong"] == 0, figures
    assert figures["polls"] > 200, figures
    assert figures["runs"] > 100, figures
    assert figures["reports"] == figures["runs"], f"a run ended without a trace: {figures}"
    assert figures["abandoned"] > 0, figures
    assert figures["whole_pool_admitted"], figures
    assert figures["left_over"] == 0, figures


@pytest.mark.parametrize("rule", ["late", "outside", "early", "lagging"])
def test_a_broken_rule_is_found_out(backend: Backend, rule: str) -> None:
    figures = fire(backend, "--seconds", "30", "--rule", rule)
    assert figures["lowest"] < 0, figures
    assert figures["wrong"] == 0, "the totals are right: it is the admission that is not"
