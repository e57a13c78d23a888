"""The flow in examples/ does what it says."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def example(gateway, monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    return importlib.import_module("prefect_flow")


def test_it_spends_and_reports(api, gateway, example, ledger):
    state = example.catalogue([["cat 1", "cat 2"], ["dog 1"]], return_state=True)
    assert state.result() == 3
    assert gateway.credits == 120 - 3 * 8
    reports = [each["table"] for each in api.artifacts(state.state_details.flow_run_id)]
    assert sorted(each["credits_consumed"] for each in reports) == [8, 16]
    assert {each["job"] for each in reports} == {"illustrate"}
    assert list(ledger.holds()) == []


def test_it_is_skipped_when_short(gateway, example):
    state = example.catalogue([["cat"] * 16], return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Skipped")
    assert gateway.credits == 120
    assert gateway.tasks == []
