"""What somebody sees whose job is refused: his own line, and two frames of ours at most."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from creditguard import CreditGuardError, guard


def block():
    with guard("job", budget=500):
        pass


async def ablock():
    async with guard("job", budget=500):
        pass


@guard(budget=500)
def function(): ...


@guard(budget=500)
async def coroutine(): ...


@guard(budget=500)
def generator():
    yield


@guard(budget=500)
async def agenerator():
    yield


FACES = {
    "with": block,
    "async with": lambda: asyncio.run(ablock()),
    "function": function,
    "coroutine": lambda: asyncio.run(coroutine()),
    "generator": lambda: next(generator()),
    "async generator": lambda: asyncio.run(agenerator().__anext__()),
}


@pytest.mark.parametrize("why", ["short", "unreachable", "rejected", "no ledger"])
@pytest.mark.parametrize("face", FACES)
def test_a_refusal_is_two_frames_of_ours_at_most(credit_gateway, monkeypatch, tmp_path, face, why):
    if why == "unreachable":
        monkeypatch.setenv("CREDITGUARD_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("CREDITGUARD_TIMEOUT", "0.5")
    elif why == "rejected":
        monkeypatch.setenv("APIMALL_API_KEY", "another-key")
    elif why == "no ledger":
        monkeypatch.setenv("CREDITGUARD_LEDGER", f"sqlite:///{tmp_path}/nowhere/ledger.db")
    with pytest.raises(CreditGuardError) as caught:
        FACES[face]()
    shown = traceback.extract_tb(caught.value.__traceback__)
    ours = [f"{frame.filename}: {frame.name}" for frame in shown if "/creditguard/" in frame.filename]
    assert len(ours) <= 2, ours
    assert any(frame.filename == __file__ for frame in shown)
