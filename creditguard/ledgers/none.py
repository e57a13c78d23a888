"""The ledger that is off: it admits everything and remembers nothing, except which runs this process has under way, so that
a report can still tell whether they overlapped.
"""

# ruff: noqa: ARG002 - it has the verbs of a ledger, and no use for what they say

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from creditguard.process.identity import this_process
from creditguard.rules.values import Grant, Hold, LiveHold, Mark, Owner, Reading


class NoLedger:
    """Admits every hold. Counts the live runs of this process; a forked child starts from zero."""

    name = "none"
    ttl: float | None = None

    _process = ""
    """Whose runs these are."""
    _accounts: dict[str, str]
    _started: Counter[str]
    _ended: Counter[str]

    def mark(self, account: str) -> Mark:
        self._look()
        return Mark(started=self._started[account], ended=self._ended[account])

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        self._look()
        if hold.id not in self._accounts:
            self._accounts[hold.id] = hold.account
            self._started[hold.account] += 1
        return Grant(admitted=True, held_by_others=0)

    def extend(self, run_id: str, by: int, *, available: int | None, mark: Mark | None) -> Grant:
        return Grant(admitted=True, held_by_others=0)

    def shrink(self, run_id: str, to: int, *, budget: int | None = None) -> None:
        pass

    def renew(self, owner: Owner, run_ids: Iterable[str]) -> frozenset[str]:
        return frozenset()

    def settle(self, run_id: str, account: str, report: Mapping[str, object]) -> None:
        self.release(run_id)

    def release(self, run_id: str) -> bool:
        self._look()
        account = self._accounts.pop(run_id, None)
        if account is not None:
            self._ended[account] += 1
        return account is not None

    def sweep(self, account: str) -> Sequence[LiveHold]:
        return ()

    def set_lagging(self, account: str, lagging: bool) -> None:
        pass

    def holds(self, account: str | None = None, *, limit: int = 1000) -> Sequence[LiveHold]:
        return ()

    def history(
        self, *, account: str | None = None, job: str | None = None, since: datetime | None = None, limit: int = 20
    ) -> Sequence[Mapping[str, object]]:
        return ()

    def runs(
        self, *, since: datetime | None = None, job: str | None = None, account: str | None = None
    ) -> Iterator[Mapping[str, object]]:
        return iter(())

    def recent(self, account: str, *, max_age: float, claim: float) -> Reading | bool:
        return True

    def publish(self, account: str, reading: Reading) -> None:
        pass

    def close(self) -> None:
        pass

    def _look(self) -> None:
        """Whether this is still the process that it was."""
        me = this_process().id
        if self._process != me:
            self._process, self._accounts, self._started, self._ended = me, {}, Counter(), Counter()
