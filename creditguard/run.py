"""One guarded execution, as the job sees it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal

from creditguard import events, flow, policy
from creditguard.drivers import Ports, sync
from creditguard.errors import LeaseLost
from creditguard.models import EXACT, Admission, Amount, Outcome, Plan, Report, to_credits
from creditguard.runtime import runtime

_stack: ContextVar[tuple[Run, ...]] = ContextVar("creditguard_runs", default=())
"""The runs that this code runs in, outermost first."""


def current_run() -> Run | None:
    """The innermost guarded run that this code runs in; None outside of any. For functions that `@guard` wraps:

    @guard(budget=500)
    def enrich_all(rows):
        for row in rows:
            current_run().record(enrich(row).credits_used)
    """
    # A run may have ended in another context than this one (in a fixture, by an exit stack of another task).
    return next((run for run in reversed(_stack.get()) if run.report is None), None)


@contextmanager
def current(run: Run) -> Iterator[None]:
    """Make `run` the current one for a while."""
    token = _stack.set((*_stack.get(), run))
    try:
        yield
    finally:
        _stack.reset(token)


class Run:
    """A run, from admission to its report: what `with guard(...) as run` gives.

    It may be handed to other threads and tasks of the job: `record` is safe in all of them.
    """

    def __init__(self, plan: Plan, ports: Ports) -> None:
        self._plan = plan
        self._ports = ports
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._recorded: Decimal | None = None
        self._admission = Admission(plan, time.monotonic())
        self._lease_lost = False
        self._report: Report | None = None

    def __repr__(self) -> str:
        state = self._report.outcome if self._report else "running"
        return f"<Run {self.id} of {self.job!r}: {state}>"

    @property
    def id(self) -> str:
        """The run's own id, in all its events."""
        return self._plan.run_id

    @property
    def job(self) -> str:
        """The job's name."""
        return self._plan.job

    @property
    def account(self) -> str:
        """The account that it draws on: a name, or a digest."""
        return self._plan.account

    @property
    def budget(self) -> Decimal:
        """The credits that were declared."""
        return self._plan.budget

    @property
    def balance_before(self) -> Decimal | None:
        """What the account had before the run; None when it could not be read."""
        return self._admission.balance.amount if self._admission.balance else None

    @property
    def held_by_others(self) -> Decimal | None:
        """What other runs held at admission."""
        return self._admission.held_by_others

    @property
    def headroom(self) -> Decimal | None:
        """What the run could have declared at most."""
        return self._admission.headroom

    @property
    def recorded(self) -> Decimal | None:
        """The credits that were recorded so far; None before the first `record`."""
        return self._recorded

    @property
    def lease_lost(self) -> bool:
        """The hold lapsed while the job ran (the process was suspended, or the ledger was out of reach, for longer than a
        lease): other runs may have been admitted against the same credits."""
        return self._lease_lost

    @property
    def report(self) -> Report | None:
        """What was consumed, and how sure that is. None until the run has ended."""
        return self._report

    def record(self, credits_used: Amount) -> None:
        """Add what the job itself knows that it spent (`credits_used` in the API's answer; a refund is negative).

        Raises ConfigurationError for what is not a number.
        """
        used = to_credits(credits_used, "record()", negative=True)
        with self._lock:
            self._recorded = used if self._recorded is None else EXACT.add(self._recorded, used)

    # The guard drives a run through the following; a job has no use for them.

    def ask(self) -> Admission:
        """Whether the run could start now. Takes nothing, starts nothing."""
        return sync.run(flow.ask(self._plan), self._ports)

    async def aask(self) -> Admission:
        """As `ask`, without blocking the event loop."""
        from creditguard.drivers import asynchronous

        return await asynchronous.run(flow.ask(self._plan), self._ports)

    def open(self) -> None:
        self._ports.leases.when_lost(self.id, self._on_lease_lost)
        self._admitted(sync.run(flow.enter(self._plan), self._ports))

    async def aopen(self) -> None:
        from creditguard.drivers import asynchronous

        self._ports.leases.when_lost(self.id, self._on_lease_lost)
        self._admitted(await asynchronous.run(flow.enter(self._plan), self._ports))

    def _admitted(self, admission: Admission) -> None:
        self._admission = admission
        if admission.ledger_failed and self._plan.ledger_optional and not self._ports.leases.ever_answered:
            runtime.pass_over_default_ledger()
        if admission.refusal:
            self._report = policy.report(admission, self._ending("refused"), None, None)
            raise admission.refusal

    def close(self, outcome: Outcome) -> None:
        if self._elsewhere():
            return
        try:
            closing = sync.run(flow.leave(self._admission, self._ending(outcome)), self._ports)
        except Exception as bug:
            self._say(bug)
        else:
            self._closed(closing)

    async def aclose(self, outcome: Outcome) -> None:
        from creditguard.drivers import asynchronous

        if self._elsewhere():
            return
        ending = self._ending(outcome)
        try:
            closing = await asynchronous.run_shielded(flow.leave(self._admission, ending), self._ports)
        except Exception as bug:
            self._say(bug)
        else:
            self._closed(closing)

    def _elsewhere(self) -> bool:
        """In a forked child that leaves its parent's `with` block: the run is the parent's to close."""
        return os.getpid() != self._pid

    def _ending(self, outcome: Outcome) -> policy.Ending:
        return policy.Ending(outcome, self._recorded, time.monotonic(), self._lease_lost)

    def _closed(self, closing: flow.Closing) -> None:
        self._report = closing.report
        if closing.interrupted:
            raise closing.interrupted

    def _say(self, bug: Exception) -> None:
        # A bug of ours, or a ledger of somebody else's that breaks its promises: never the job's loss.
        logging.getLogger("creditguard").error("run %s could not be closed", self.id, exc_info=bug)

    def _on_lease_lost(self, error: LeaseLost) -> None:
        self._lease_lost = True
        self._ports.sink.emit(events.lease_lost(self._admission, error))
