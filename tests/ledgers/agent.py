"""A process that holds: does to a ledger what it reads on stdin, a JSON list of verb and arguments per line.

agent.py URL [TTL]
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from creditguard.ledgers.postgres import PostgresLedger
from creditguard.ledgers.sqlite import SqliteLedger

try:
    from creditguard.process.identity import this_process
    from creditguard.rules.values import Hold
except ModuleNotFoundError:  # the first version of the program, see test_migrations.py
    from creditguard.models import Hold  # type: ignore[import-not-found, no-redef]
    from creditguard.processes import this_process  # type: ignore[import-not-found, no-redef]


class Verbs:
    def __init__(self, url: str, ttl: float) -> None:
        sqlite = url.startswith("sqlite:///")
        self.ledger: Any = (SqliteLedger if sqlite else PostgresLedger)(url.removeprefix("sqlite:///"), ttl=ttl)
        self._held: list[str] = []

    def pid(self) -> int:
        return this_process().pid

    def reserve(self, run: str, amount: int, available: int | None = None, account: str = "a") -> bool:
        mark = self.ledger.mark(account)
        grant = self.ledger.reserve(Hold(run, account, amount, "agent"), this_process(), available=available, mark=mark)
        if grant.admitted:
            self._held.append(run)
        return grant.admitted

    def renew(self) -> list[str]:
        return sorted(self.ledger.renew(this_process(), self._held))

    def renew_always(self, every: float) -> None:
        def renewing() -> None:
            while True:
                time.sleep(every)
                self.ledger.renew(this_process(), self._held)

        threading.Thread(target=renewing, daemon=True).start()

    def release(self, run: str) -> bool:
        with suppress(ValueError):
            self._held.remove(run)
        return self.ledger.release(run)

    def settle(self, run: str, account: str = "a") -> None:
        self._held.remove(run)
        self.ledger.settle(run, account, {"run_id": run, "job": "agent", "outcome": "succeeded"})

    def turnover(self, runs: int, account: str = "a") -> list[str]:
        """Reserve and settle so many runs, and say what went wrong."""
        errors = []
        for number in range(runs):
            try:
                if self.reserve(f"{this_process().id}-{number}", 10, None, account):
                    self.settle(f"{this_process().id}-{number}", account)
            except Exception as error:
                errors.append(repr(error))
        return errors

    def sweep(self, account: str = "a") -> int:
        freed = self.ledger.sweep(account)
        return freed if isinstance(freed, int) else len(freed)

    def freeze(self) -> None:
        from freezegun import freeze_time

        self._frozen = freeze_time("2031-01-01").start()

    def tick(self, seconds: float) -> float:
        self._frozen.tick(seconds)
        return time.monotonic()

    def transaction(self) -> None:
        """Stay in the middle of a verb that writes, holding every lock there is, until killed."""
        with self.ledger._verb(writes=True):
            print("null", flush=True)
            time.sleep(3600)

    def close(self) -> None:
        self.ledger.close()


def main(url: str, ttl: str = "60") -> None:
    verbs = Verbs(url, float(ttl))
    for line in sys.stdin:
        verb, arguments = json.loads(line)
        answer: Any
        try:
            answer = getattr(verbs, verb)(**arguments)
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
