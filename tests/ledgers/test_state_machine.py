"""Random histories of a ledger, held against a plain model, with owners that die and a clock that moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger_world import Backend, new_owner

from creditguard.rules.values import Grant, Hold, Mark, Owner

TTL = 60
RUNS = st.sampled_from([f"run-{number}" for number in range(8)])
ACCOUNTS = st.sampled_from(["a", "b"])
OWNERS = st.integers(0, 2)
AMOUNTS = st.sampled_from([0, 1, 10, 60, 100])
AVAILABLE = st.one_of(st.none(), st.sampled_from([-1, 0, 10, 100, 160, 250]))


@dataclass
class Account:
    admitted: int = 0
    released: int = 0
    started: int = 0
    ended: int = 0
    lagging: bool = False
    holds: dict[str, tuple[Owner, int]] = field(default_factory=dict)
    budgets: dict[str, int] = field(default_factory=dict)
    queue: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Who waits, in the order of coming: for how much, and until when the place is kept."""

    def mark(self) -> Mark:
        return Mark(self.admitted, self.released, self.started, self.ended, self.lagging)

    def held(self, mark: Mark | None) -> int:
        return self.admitted - (mark or self).released

    def free(self, run: str) -> None:
        _, amount = self.holds.pop(run)
        self.released += amount
        self.ended += 1

    def kept(self, run: str, available: int, now: float) -> int:
        self.queue = {each: place for each, place in self.queue.items() if place[1] > now}
        before = [*self.queue]
        before = before[: before.index(run)] if run in before else before
        return next((amount for each in before for amount, _ in [self.queue[each]] if 0 < amount <= available), 0)


@dataclass
class Model:
    """The rules, in memory. Times in whole steps of the clock."""

    now: float = 0
    accounts: dict[str, Account] = field(default_factory=lambda: {"a": Account(), "b": Account()})
    lease_ends: dict[str, float] = field(default_factory=dict)
    lapsed: set[str] = field(default_factory=set)
    """Live holds that have been through a lapse of their owner's lease."""
    reports: dict[str, int | str] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    """Runs that were released, whether they had a hold or not: their reservations come too late."""
    dead: set[str] = field(default_factory=set)

    def account_of(self, run: str) -> Account | None:
        return next((account for account in self.accounts.values() if run in account.holds), None)

    def over(self, owner: Owner) -> bool:
        return self.now >= self.lease_ends.get(owner.id, self.now)

    def renew_lease(self, owner: Owner) -> None:
        if self.over(owner):
            holds = [(run, of) for account in self.accounts.values() for run, (of, _) in account.holds.items()]
            self.lapsed.update(run for run, of in holds if of.id == owner.id)
        self.lease_ends[owner.id] = self.now + TTL

    def reserve(
        self, run: str, name: str, amount: int, owner: Owner, available: int | None, mark: Mark | None, waits: int
    ) -> Grant:
        account = self.accounts[name]
        held = account.held(mark)
        if run in account.holds:
            return Grant(admitted=True, held_by_others=held - account.holds[run][1])
        if run in self.reports or run in self.released:
            return Grant(admitted=False, held_by_others=held)
        if available is not None:
            kept = min(account.kept(run, available, self.now), max(available - held, 0))
            if available - held - kept < amount:
                if waits:
                    account.queue[run] = (amount if amount <= available else 0, self.now + waits)
                return Grant(admitted=False, held_by_others=held + kept)
        account.queue.pop(run, None)
        self.renew_lease(owner)
        self.lapsed.discard(run)
        account.holds[run] = (owner, amount)
        account.budgets[run] = amount
        account.admitted += amount
        account.started += 1
        return Grant(admitted=True, held_by_others=held)

    def extend(self, run: str, by: int, available: int | None, mark: Mark | None) -> Grant:
        account = self.account_of(run)
        if account is None:
            return Grant(admitted=False, held_by_others=0, missing=True)
        held = account.held(mark)
        if available is not None and available - held < by:
            return Grant(admitted=False, held_by_others=held)
        owner, amount = account.holds[run]
        account.holds[run] = (owner, amount + by)
        account.budgets[run] += by
        account.admitted += by
        return Grant(admitted=True, held_by_others=held)

    def shrink(self, run: str, to: int) -> None:
        account = self.account_of(run)
        if account and not account.lagging and to < account.holds[run][1]:
            owner, amount = account.holds[run]
            account.holds[run] = (owner, to)
            account.released += amount - to

    def end(self, run: str) -> bool:
        for each in self.accounts.values():
            each.queue.pop(run, None)
        account = self.account_of(run)
        if account:
            account.free(run)
        return account is not None

    def sweep(self, name: str) -> set[str]:
        account = self.accounts[name]
        doomed = [run for run, (owner, _) in account.holds.items() if owner.id in self.dead or self.over(owner)]
        for run in doomed:
            account.free(run)
            self.reports[run] = "abandoned"
        return set(doomed)

    def renew(self, owner: Owner, runs: set[str]) -> set[str]:
        holds = {run for account in self.accounts.values() for run, (of, _) in account.holds.items() if of == owner}
        self.renew_lease(owner)
        return {run for run in runs if run not in holds or run in self.lapsed}


class LedgerMachine(RuleBasedStateMachine):
    backend: Backend
    examples = count(1)

    @initialize()
    def start(self) -> None:
        # A fresh ledger for each example would take longer than the example: fresh names do.
        self.prefix = f"example-{next(self.examples)}-"
        self.started_at = self.backend.clock.skew
        self.owners = [new_owner() for _ in range(3)]
        self.model = Model()
        self.ledger = self.backend.make()
        self.marks: list[tuple[str, Mark]] = []

    def teardown(self) -> None:
        self.ledger.close()

    @rule(steps=st.integers(1, 4))
    def tick(self, steps: int) -> None:
        self.backend.clock.forward(20 * steps)  # real time passes too, by far less than a step
        self.model.now += 20 * steps

    @rule(account=ACCOUNTS)
    def mark(self, account: str) -> None:
        mark = self.ledger.mark(self.prefix + account)
        assert mark == self.model.accounts[account].mark()
        self.marks.append((account, mark))

    @rule(
        run=RUNS, account=ACCOUNTS, amount=AMOUNTS, owner=OWNERS, available=AVAILABLE, back=st.integers(0, 4),
        waits=st.sampled_from([0, 30]),
    )  # fmt: skip
    def reserve(
        self, run: str, account: str, amount: int, owner: int, available: int | None, back: int, waits: int
    ) -> None:
        if any(run in [*of.holds, *of.queue] for name, of in self.model.accounts.items() if name != account):
            return  # no run changes its account
        mark = self.mark_from(account, back)
        grant = self.ledger.reserve(
            Hold(self.prefix + run, self.prefix + account, amount, self.prefix, balance=amount * 2, waits=waits),
            self.owners[owner],
            available=available,
            mark=mark,
        )
        assert grant == self.model.reserve(run, account, amount, self.owners[owner], available, mark, waits)

    def mark_from(self, account: str, back: int) -> Mark | None:
        marks = [mark for of, mark in self.marks if of == account]
        return marks[-back] if 0 < back <= len(marks) else None

    @rule(run=RUNS, by=AMOUNTS, available=AVAILABLE, back=st.integers(0, 4))
    def extend(self, run: str, by: int, available: int | None, back: int) -> None:
        mark = self.mark_from("a" if self.model.account_of(run) is self.model.accounts["a"] else "b", back)
        grant = self.ledger.extend(self.prefix + run, by, available=available, mark=mark)
        assert grant == self.model.extend(run, by, available, mark)

    @rule(run=RUNS, to=AMOUNTS, times=st.integers(1, 2))
    def shrink(self, run: str, to: int, times: int) -> None:
        for _ in range(times):
            self.ledger.shrink(self.prefix + run, to)
        self.model.shrink(run, to)

    @rule(account=ACCOUNTS, lagging=st.booleans())
    def set_lagging(self, account: str, lagging: bool) -> None:
        self.ledger.set_lagging(self.prefix + account, lagging)
        self.model.accounts[account].lagging = lagging

    @rule(run=RUNS)
    def release(self, run: str) -> None:
        assert self.ledger.release(self.prefix + run) == self.model.end(run)
        self.model.released.add(run)

    @rule(run=RUNS, account=ACCOUNTS, number=st.integers(0, 99))
    def settle(self, run: str, account: str, number: int) -> None:
        holder = self.model.account_of(run)
        if holder:
            account = "a" if holder is self.model.accounts["a"] else "b"
        self.ledger.settle(
            self.prefix + run,
            self.prefix + account,
            {"n": number, "job": self.prefix, "run_id": self.prefix + run, "outcome": ""},
        )
        self.model.end(run)
        if self.model.reports.get(run, "abandoned") == "abandoned":
            self.model.reports[run] = number

    @rule(account=ACCOUNTS)
    def sweep(self, account: str) -> None:
        freed = {live.hold.id for live in self.ledger.sweep(self.prefix + account)}
        assert freed == {self.prefix + run for run in self.model.sweep(account)}

    @rule(owner=OWNERS, runs=st.sets(RUNS))
    def renew(self, owner: int, runs: set[str]) -> None:
        if self.owners[owner].id in self.model.dead:
            return
        lost = self.ledger.renew(self.owners[owner], [self.prefix + run for run in runs])
        assert lost == {self.prefix + run for run in self.model.renew(self.owners[owner], runs)}

    @precondition(lambda self: len(self.model.dead) < 2)
    @rule(owner=OWNERS)
    def die(self, owner: int) -> None:
        dead = self.owners[owner].id
        self.owners[owner] = new_owner()
        self.model.dead.add(dead)
        self.backend.dead.add(dead)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.backend.make()

    @invariant()
    def holds_are_the_models(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for name, account in self.model.accounts.items():
            holds = self.ledger.holds(self.prefix + name)
            live = {hold.hold.id: (hold.owner, hold.hold.amount) for hold in holds}
            assert live == {self.prefix + run: held for run, held in account.holds.items()}
            assert {hold.hold.id: hold.budget for hold in holds} == {
                self.prefix + run: account.budgets[run] for run in account.holds
            }
            mark = self.ledger.mark(self.prefix + name)
            assert mark == account.mark()
            assert mark.admitted - mark.released == sum(amount for _, amount in live.values())
            assert mark.started - mark.ended == len(live)

    @precondition(lambda self: self.model.reports)
    @invariant()
    def reports_are_the_models(self) -> None:
        reports = self.ledger.history(job=self.prefix, limit=100)
        found = {str(report["run_id"]): report.get("n", report["outcome"]) for report in reports}
        assert found == {self.prefix + run: said for run, said in self.model.reports.items()}
        assert [*self.ledger.runs(job=self.prefix)] == [*reversed(reports)]


@contextmanager
def on(backend: Backend) -> Iterator[type[LedgerMachine]]:
    class Machine(LedgerMachine):
        pass

    Machine.backend = backend
    yield Machine


def test_a_ledger_does_what_the_model_does(backend: Backend) -> None:
    examples = {"sqlite": 80, "postgres": 15}[backend.kind]
    with on(backend) as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
