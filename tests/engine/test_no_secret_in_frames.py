"""A source or a ledger whose repr, and whose errors, show a secret: no frame, message or event of the engine's carries it to the caller."""

from __future__ import annotations

import asyncio
import traceback

import pytest
from attack_world import Pool

from creditguard import CreditGuardError
from creditguard.ledgers.none import NoLedger

CANARY = "sk-canary-7f3a"

pytestmark = pytest.mark.timeout(60)


class LoudPool(Pool):
    """Breaks its promises, and quotes its key while it does. An object of somebody else's may show itself as it likes."""

    def __init__(self, error=None, delay=0.0):
        super().__init__(delay=delay)
        self.error = error

    def read(self, timeout):
        super().read(timeout)
        if self.error:
            raise self.error(f"GET https://gateway/?key={CANARY} failed")
        return super().read(timeout)


class LoudLedger(NoLedger):
    def mark(self, account):
        raise OSError(f"cannot connect to postgresql://user:{CANARY}@db/ledger")


def everything(error):
    """The error with all that a renderer of tracebacks can reach: causes, contexts, and the locals of every frame."""
    return "".join(
        traceback.TracebackException.from_exception(error, capture_locals=True, compact=False).format(chain=True)
    )


@pytest.mark.parametrize("raised", [OSError, RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_source_that_quotes_its_key(world, raised):
    with pytest.raises(CreditGuardError) as caught, world.guard(source=LoudPool(raised)):
        pytest.fail("it was admitted")
    assert CANARY not in everything(caught.value)
    assert not [event for event in world.log.events if CANARY in str(event.fields)]


def test_a_ledger_that_quotes_its_password(world):
    with pytest.raises(CreditGuardError) as caught, world.guard(ledger=LoudLedger()):
        pytest.fail("it was admitted")
    assert CANARY not in everything(caught.value)
    assert not [event for event in world.log.events if CANARY in str(event.fields)]


def test_a_task_that_is_cancelled_in_the_middle_of_a_reading(world):
    async def job():
        async with world.guard(source=LoudPool(delay=0.3)):
            pass

    async def main():
        task = asyncio.create_task(job())
        await asyncio.sleep(0.1)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            return error

    assert CANARY not in everything(asyncio.run(main()))
    assert world.wrong() is None
