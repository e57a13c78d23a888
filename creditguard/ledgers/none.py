"""The ledger that is off: it admits everything and remembers nothing, except which runs this process has under way, so that
a report can still tell whether they overlapped.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from creditguard.process.identity import this_process
from creditguard.rules.values import Grant, Hold, LiveHold, Mark, Owner, Reading


class NoLedger:
    """Admits every hold. Counts the live runs of this process; a forked child starts from zero."""

    name = "none"
    ttl: float | None = None

    def __init__(self) -> None:
        self._by_process: dict[str, _Runs] = {}

    def mark(self, account: str) -> Mark:
        return self._runs().mark(account)

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:  # noqa: ARG002
        self._runs().start(hold.id, hold.account)
        return Grant(admitted=True, held_by_others=0)

    def renew(self, owner: Owner, run_ids: Iterable[str]) -> frozenset[str]:  # noqa: ARG002
        return frozenset()

    def settle(self, run_id: str, account: str, report: Mapping[str, object]) -> None:  # noqa: ARG002
        self._runs().end(run_id)

    def release(self, run_id: str) -> bool:
        return self._runs().end(run_id)

    def sweep(self, account: str) -> int:  # noqa: ARG002
        return 0

    def holds(self, account: str | None = None) -> Sequence[LiveHold]:  # noqa: ARG002
        return ()

    def history(
        self,
        *,
        account: str | None = None,  # noqa: ARG002
        job: str | None = None,  # noqa: ARG002
        limit: int = 20,  # noqa: ARG002
    ) -> Sequence[Mapping[str, object]]:
        return ()

    def recent(self, account: str, *, max_age: float, claim: float) -> Reading | bool:  # noqa: ARG002
        return True

    def publish(self, account: str, reading: Reading) -> None:
        pass

    def close(self) -> None:
        pass

    def _runs(self) -> _Runs:
        me = this_process().id
        return self._by_process.get(me) or self._by_process.setdefault(me, _Runs())


class _Runs:
    """The runs of one process."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may end a guarded generator while its own thread is in here.
        self._lock = threading.RLock()
        self._accounts: dict[str, str] = {}
        self._started: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def mark(self, account: str) -> Mark:
        with self._lock:
            return Mark(started=self._started.get(account, 0), ended=self._ended.get(account, 0))

    def start(self, run_id: str, account: str) -> None:
        with self._lock:
            if run_id not in self._accounts:
                self._accounts[run_id] = account
                self._started[account] = self._started.get(account, 0) + 1

    def end(self, run_id: str) -> bool:
        with self._lock:
            account = self._accounts.pop(run_id, None)
            if account is not None:
                self._ended[account] = self._ended.get(account, 0) + 1
            return account is not None
