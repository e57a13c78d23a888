"""The engine under attack: a pool in this process, a sink that remembers order, and a ledger that is asked what is left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # pytest's importlib mode has no imports between test files otherwise

from attack_world import World


@pytest.fixture(params=["none", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Both ledgers in turn."""
    yield from _world(request.param, tmp_path, monkeypatch)


@pytest.fixture
def sqlite_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A ledger that shows its holds."""
    yield from _world("sqlite", tmp_path, monkeypatch)


def _world(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if "CREDITGUARD_TIMEOUT" not in os.environ:
        monkeypatch.setenv("CREDITGUARD_TIMEOUT", "2")
    world = World("none" if kind == "none" else f"sqlite:///{tmp_path}/ledger.db")
    yield world
    world.close()
