"""What a guard costs: one after the other against two bare requests, and ten thousand at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from time import perf_counter

import httpx
from measure import Arm, compare, timed
from rows_ledger import TWO_TRANSACTIONS, two_transactions
from table import Line, Skipped, line
from world import World

from creditguard import guard
from creditguard.rules.ports import BalanceSource
from creditguard.rules.values import Balance

PAIR = "two bare httpx.Client.get"


def one_by_one(world: World) -> Iterator[Line | Skipped]:
    """Guards against the two requests that they cannot do without, each on a client that is kept."""
    calls = 5
    with httpx.Client(headers=world.headers) as client:
        pair = timed(_pair(client, world), calls)
        arms = {"none": _guarded("none", calls), "sqlite": _guarded(world.sqlite("guard"), calls)}
        found = compare(pair, arms, rounds=world.pick(300, 20))
        yield line("guard, no ledger", PAIR, found, "none", 1.3, per=calls, own=0.2)
        yield line("guard + SQLite ledger", PAIR, found, "sqlite", 1.7, per=calls)
        try:
            arms = {"postgres": _guarded(world.postgres("guard"), calls)}
        except ImportError as error:
            yield Skipped("guard + PostgreSQL ledger", str(error))
            return
        found = compare(pair, arms, rounds=world.pick(80, 10))
        yield line("guard + PostgreSQL ledger", PAIR, found, "postgres", 3.0, per=calls)


class _InProcess:
    """A source that answers at once, from memory."""

    name, unit, account = "memory", "credits", "memory"

    def read(self, timeout: float) -> Balance:  # noqa: ARG002
        return Balance(Decimal(1000), self.unit, datetime.now(timezone.utc), None, self.name)


def without_network(world: World) -> Iterator[Line]:
    """What is creditguard's own in a guard: nobody is asked, and the floor is what its ledger cannot do without."""
    calls = 20
    arms = {
        name: _guarded(url, calls, _InProcess()) for name, url in (("none", "none"), ("sqlite", world.sqlite("own")))
    }
    found = compare(timed(two_transactions(world), calls), arms, rounds=world.pick(100, 10))
    yield line("guard, no ledger, no network", TWO_TRANSACTIONS, found, "none", per=calls)
    yield line("guard + SQLite, no network", TWO_TRANSACTIONS, found, "sqlite", 8, per=calls, total=0.3)


def _guarded(ledger: str, calls: int, source: BalanceSource | None = None) -> Arm:
    guarded = guard("bench", budget=1, ledger=ledger, source=source)

    def once() -> None:
        with guarded:
            pass

    return timed(once, calls)


def _pair(client: httpx.Client, world: World) -> Callable[[], object]:
    url = world.balances
    return lambda: (client.get(url), client.get(url))


def at_once(world: World) -> Iterator[Line]:
    """Guards that are entered at once by tasks, against as many pairs of bare requests one after the other."""
    many = world.pick(10_000, 1_000)
    sample = 50
    swarms = {"none": _Swarm(world, "none", many), "SQLite": _Swarm(world, world.sqlite("swarm"), many)}
    with httpx.Client(headers=world.headers) as client:
        pairs = timed(_pair(client, world), sample)
        arms: dict[str, Arm] = {name: swarm.run for name, swarm in swarms.items()}
        found = compare(lambda: pairs() * many / sample, arms, rounds=2, warm=False)
    for name, swarm in swarms.items():
        detail = (
            f"{swarm.requests} requests to enter, {swarm.served}/{many} served; "
            f"entered in {swarm.entered:.2f} s, left in {swarm.left:.2f} s"
        )
        yield Line(
            f"{many:,} async guards at once, {'no' if name == 'none' else name} ledger",
            f"{many:,} bare pairs in a row",
            found.ratio(name),
            found.noise,
            "<= 2 req",
            swarm.requests <= 2 and swarm.served == many,
            detail,
        )


class _Swarm:
    """Many tasks that enter one guard at once, wait until all are in, and leave. Keeps the worst of all its runs."""

    def __init__(self, world: World, ledger: str, many: int) -> None:
        self._world = world
        self._guard = guard("swarm", budget=1, ledger=ledger)
        self._many = many
        self.requests = 0
        self.served = many
        self.entered = self.left = 0.0

    def run(self) -> float:
        return asyncio.run(self._run())

    async def _run(self) -> float:
        inside = 0
        full, go = asyncio.Event(), asyncio.Event()

        async def one() -> bool:
            nonlocal inside
            async with self._guard as run:
                inside += 1
                if inside == self._many:
                    full.set()
                await go.wait()
            return run.report is not None and run.report.outcome == "succeeded" and not run.lease_lost

        before = self._world.balance_requests()
        start = perf_counter()
        tasks = [asyncio.create_task(one()) for _ in range(self._many)]
        all_in = asyncio.create_task(full.wait())
        await asyncio.wait([all_in, *tasks], return_when=asyncio.FIRST_COMPLETED)  # a task ends early only if it failed
        entered = perf_counter() - start
        self.requests = max(self.requests, self._world.balance_requests() - before)
        start = perf_counter()
        go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        left = perf_counter() - start
        all_in.cancel()
        self.served = min(self.served, outcomes.count(True))
        self.entered, self.left = max(self.entered, entered), max(self.left, left)
        return entered + left
