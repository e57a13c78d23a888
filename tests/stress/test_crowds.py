"""Many at once: readings are shared inside a process, and across processes by those who accept a recent one."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from creditguard import SourceError, guard

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("ledger", [None, "none"])
def test_a_thousand_tasks_at_once_make_two_requests_at_most(credit_gateway, ledger):
    credit_gateway.set_credits(10_000)
    crowd = guard("crowd", budget=1, ledger=ledger)
    entered = []

    async def one(everyone):
        async with crowd as run:
            entered.append(run)
            if len(entered) == 1000:
                reads.append(credit_gateway.balance_reads)
                everyone.set()
            await everyone.wait()

    async def main():
        everyone = asyncio.Event()
        await asyncio.gather(*(one(everyone) for _ in range(1000)))

    reads = []
    asyncio.run(main())
    assert reads[0] <= 2
    assert len({run.report.run_id for run in entered}) == 1000
    assert credit_gateway.balance_reads <= 12  # exits come in waves: as fast as the ledger lets each go


def test_threads_share_what_starts_after_they_asked(credit_gateway):
    credit_gateway.set_credits(10_000)
    barrier = threading.Barrier(200)

    def one(_):
        barrier.wait(30)
        return guard("crowd", budget=1).ask().balance.amount

    with ThreadPoolExecutor(200) as pool:
        assert set(pool.map(one, range(200))) == {10_000}
    assert credit_gateway.balance_reads < 30


def test_a_reading_is_never_older_than_the_question(credit_gateway):
    """Each asks after it has seen the pool change: what it gets told must not be from before that."""
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [guard("busy", budget=0).ask() for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        for number in range(100):
            credit_gateway.set_credits(1000 + number)
            assert guard("fresh", budget=1).ask().balance.amount == 1000 + number
    finally:
        stop.set()
        busy.join()


def test_a_request_that_hangs_does_not_hold_up_the_others(credit_gateway, monkeypatch):
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "2")
    credit_gateway.fault(delay=10, times=1)
    answers = []

    def one(name):
        try:
            answers.append((name, guard(name, budget=1).ask().refusal))
        except SourceError as error:
            answers.append((name, error))

    hanging = threading.Thread(target=one, args=("hanging",))
    hanging.start()
    while credit_gateway.state()["faults"]:
        pass
    one("other")
    hanging.join()
    assert answers[0] == ("other", None)
    assert isinstance(answers[1][1], SourceError)
    credit_gateway.clear_faults()


def test_if_the_one_who_reads_for_all_is_cancelled_another_does(credit_gateway):
    credit_gateway.fault(delay=0.3, times=1)

    async def main():
        shared = guard("shared", budget=1)
        first = asyncio.create_task(shared.aask())
        await asyncio.sleep(0)
        others = [asyncio.create_task(shared.aask()) for _ in range(5)]
        await asyncio.sleep(0.1)
        first.cancel()
        answers = await asyncio.gather(*others)
        assert all(answer.refusal is None for answer in answers)
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())


def ask_many(barrier, answers):
    with ThreadPoolExecutor(20) as pool:
        barrier.wait(60)
        for admission in pool.map(lambda _: guard("fleet", budget=1, max_age=30, account="fleet").ask(), range(20)):
            answers.put(admission.balance.amount)


def test_processes_that_accept_a_recent_reading_share_one(credit_gateway):
    """500 tasks in 25 processes, at once."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(25), context.Queue()
    processes = [context.Process(target=ask_many, args=(barrier, answers)) for _ in range(25)]
    for process in processes:
        process.start()
    assert {answers.get(timeout=60) for _ in range(500)} == {120}
    for process in processes:
        process.join(30)
    assert credit_gateway.balance_reads == 1
