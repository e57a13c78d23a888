"""What each verb of a ledger promises of its answer, to be asked of any ledger, sound or damaged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from ledger_world import new_owner

from creditguard.errors import LedgerUnavailable
from creditguard.process.identity import this_process
from creditguard.rules.ports import Ledger
from creditguard.rules.values import Balance, Grant, Hold, LiveHold, Mark, Owner, Reading

READING = Reading(
    Balance(Decimal("123.456789"), "credits", datetime(2026, 1, 2, 3, 4, 5, 678, timezone.utc), "req-1", "apimall"),
    Mark(admitted=10**20, released=7, started=3, ended=1),
)
OWNERS = [new_owner(), new_owner(), this_process()]


def fill(ledger: Ledger, runs: int) -> None:
    """Something of everything that a ledger keeps."""
    for number in range(runs):
        hold = Hold(f"run-{number}", "ab"[number % 2], 10**7 + number, f"job-{number % 3}", {"n": number}, 10**9)
        assert ledger.reserve(hold, OWNERS[number % 3], available=None, mark=None).admitted
        if number % 4 == 0:
            ledger.shrink(hold.id, 10**6)
        if number % 3 == 0:
            ledger.settle(hold.id, hold.account, {"run_id": hold.id, "job": hold.job, "outcome": "succeeded"})
        if number % 7 == 0:
            ledger.release(f"never-{number}")
    for account in "ab":
        ledger.publish(account, READING)
        ledger.reserve(
            Hold(f"waits-{account}", account, 10**6, "job", waits=1000), OWNERS[0], available=10**7, mark=None
        )


def verbs(new: str) -> list[Callable[[Ledger], object]]:
    """Each verb, held against the types that it promises; `new` is the name of a run."""

    def mark(ledger: Ledger) -> None:
        is_mark(ledger.mark("a"))

    def reserve(ledger: Ledger) -> None:
        is_grant(ledger.reserve(Hold(new, "a", 5, "job", {}, 7), OWNERS[2], available=10**12, mark=Mark()))

    def extend(ledger: Ledger) -> None:
        is_grant(ledger.extend("run-1", 5, available=10**12, mark=None))

    def shrink(ledger: Ledger) -> None:
        assert ledger.shrink("run-2", 7) is None  # type: ignore[func-returns-value]

    def renew(ledger: Ledger) -> None:
        lost = ledger.renew(OWNERS[0], ["run-1", "run-4", "never"])
        assert isinstance(lost, frozenset)
        assert all(isinstance(run, str) for run in lost)

    def sweep(ledger: Ledger) -> None:
        are_live(ledger.sweep("b"))

    def settle(ledger: Ledger) -> None:
        ledger.settle("run-5", "a", {"job": "job", "run_id": "run-5"})

    def release(ledger: Ledger) -> None:
        assert ledger.release("run-7") in (True, False)

    def set_lagging(ledger: Ledger) -> None:
        ledger.set_lagging("a", lagging=True)

    def holds(ledger: Ledger) -> None:
        are_live(ledger.holds())

    def history(ledger: Ledger) -> None:
        are_reports(ledger.history(limit=1000))
        are_reports(ledger.history(job="job-1", account="a"))

    def runs(ledger: Ledger) -> None:
        are_reports(ledger.runs(job="job-1"))

    def recent(ledger: Ledger) -> None:
        reading = ledger.recent("a", max_age=1e6, claim=5)
        if isinstance(reading, bool):
            return
        assert reading.balance.amount.is_finite()
        assert all(isinstance(word, str) for word in (reading.balance.unit, reading.balance.source))
        assert reading.balance.read_at.tzinfo
        if reading.mark:
            is_mark(reading.mark)

    def publish(ledger: Ledger) -> None:
        ledger.publish("a", READING)

    return [
        mark, holds, history, runs, recent, renew, reserve, extend, shrink, set_lagging, release, sweep, settle, publish
    ]  # fmt: skip


def is_mark(mark: Mark) -> None:
    assert [type(each) for each in mark] == [int, int, int, int, bool]
    assert 0 <= mark.released <= mark.admitted
    assert 0 <= mark.ended <= mark.started


def is_grant(grant: Grant) -> None:
    assert [type(each) for each in grant] == [bool, int, bool]
    assert grant.held_by_others >= 0


def are_live(found: Any) -> None:
    for live in found:
        assert isinstance(live, LiveHold)
        hold, owner = live.hold, live.owner
        assert [type(each) for each in (hold.id, hold.account, hold.amount, hold.job)] == [str, str, int, str]
        assert isinstance(hold.labels, dict)
        assert type(live.budget) is int
        assert hold.balance is None or type(hold.balance) is int
        assert isinstance(owner, Owner)
        assert [type(each) for each in (owner.id, owner.host, owner.boot, owner.pid, owner.started)] == [
            str, str, str, int, str
        ]  # fmt: skip
        assert live.since.tzinfo
        assert live.lease_ends.tzinfo


def are_reports(found: Any) -> None:
    for report in found:
        assert isinstance(report, dict)
        datetime.fromisoformat(report["finished_at"])


def ask_all(ledger: Ledger) -> int:
    """Ask everything; how often the answer was LedgerUnavailable."""
    refused = []
    for verb in verbs("new"):
        try:
            verb(ledger)
        except LedgerUnavailable as error:
            refused.append(error)
    ledger.close()
    assert not any("\n" in error.message or error.__cause__ for error in refused)
    assert all(error.__suppress_context__ or error.__context__ is None for error in refused)
    return len(refused)
