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
    holds: dict[str, tuple[Owner, int]] = field(default_factory=dict)

    def mark(self) -> Mark:
        return Mark(self.admitted, self.released, self.started, self.ended)

    def free(self, run: str) -> None:
        _, amount = self.holds.pop(run)
        self.released += amount
        self.ended += 1


@dataclass
class Model:
    """The rules, in memory. Times in whole steps of the clock."""

    now: float = 0
    accounts: dict[str, Account] = field(default_factory=lambda: {"a": Account(), "b": Account()})
    lease_ends: dict[str, float] = field(default_factory=dict)
    lapsed: set[str] = field(default_factory=set)
    """Live holds that have been through a lapse of their owner's lease."""
    reports: dict[str, int] = field(default_factory=dict)
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
        self, run: str, name: str, amount: int, owner: Owner, available: int | None, mark: Mark | None
    ) -> Grant:
        account = self.accounts[name]
        held = account.admitted - (mark or account).released
        if run in account.holds:
            return Grant(admitted=True, held_by_others=held - account.holds[run][1])
        if run in self.reports or (available is not None and available - held < amount):
            return Grant(admitted=False, held_by_others=held)
        self.renew_lease(owner)
        self.lapsed.discard(run)
        account.holds[run] = (owner, amount)
        account.admitted += amount
        account.started += 1
        return Grant(admitted=True, held_by_others=held)

    def end(self, run: str) -> bool:
        account = self.account_of(run)
        if account:
            account.free(run)
        return account is not None

    def sweep(self, name: str) -> int:
        account = self.accounts[name]
        doomed = [run for run, (owner, _) in account.holds.items() if owner.id in self.dead or self.over(owner)]
        for run in doomed:
            account.free(run)
        return len(doomed)

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

    @rule(run=RUNS, account=ACCOUNTS, amount=AMOUNTS, owner=OWNERS, available=AVAILABLE, back=st.integers(0, 4))
    def reserve(self, run: str, account: str, amount: int, owner: int, available: int | None, back: int) -> None:
        other = self.model.account_of(run)
        if other and other is not self.model.accounts[account]:
            return  # no run changes its account
        marks = [mark for of, mark in self.marks if of == account]
        mark = marks[-back] if 0 < back <= len(marks) else None
        grant = self.ledger.reserve(
            Hold(self.prefix + run, self.prefix + account, amount, "job"),
            self.owners[owner],
            available=available,
            mark=mark,
        )
        assert grant == self.model.reserve(run, account, amount, self.owners[owner], available, mark)

    @rule(run=RUNS)
    def release(self, run: str) -> None:
        assert self.ledger.release(self.prefix + run) == self.model.end(run)

    @rule(run=RUNS, account=ACCOUNTS, number=st.integers(0, 99))
    def settle(self, run: str, account: str, number: int) -> None:
        holder = self.model.account_of(run)
        if holder:
            account = "a" if holder is self.model.accounts["a"] else "b"
        self.ledger.settle(self.prefix + run, self.prefix + account, {"n": number, "job": self.prefix})
        self.model.end(run)
        self.model.reports.setdefault(run, number)

    @rule(account=ACCOUNTS)
    def sweep(self, account: str) -> None:
        assert self.ledger.sweep(self.prefix + account) == self.model.sweep(account)

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
            live = {hold.hold.id: (hold.owner, hold.hold.amount) for hold in self.ledger.holds(self.prefix + name)}
            assert live == {self.prefix + run: held for run, held in account.holds.items()}
            mark = self.ledger.mark(self.prefix + name)
            assert mark == account.mark()
            assert mark.admitted - mark.released == sum(amount for _, amount in live.values())
            assert mark.started - mark.ended == len(live)

    @precondition(lambda self: self.model.reports)
    @invariant()
    def reports_are_the_models(self) -> None:
        reports = self.ledger.history(job=self.prefix, limit=100)
        assert sorted(report["n"] for report in reports) == sorted(self.model.reports.values())


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
