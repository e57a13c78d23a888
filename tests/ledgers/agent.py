"""A process that holds: does to a ledger what it reads on stdin, a JSON list of verb and arguments per line.

agent.py URL [TTL]
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from ledger_world import ledger_at

from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.process.identity import this_process
from creditguard.rules.values import Hold


class Verbs:
    def __init__(self, url: str, ttl: float) -> None:
        self.ledger = ledger_at(url, ttl=ttl)
        self._held: list[str] = []

    def pid(self) -> int:
        return this_process().pid

    def reserve(self, run: str, amount: int, available: int | None = None, account: str = "a") -> bool:
        mark = self.ledger.mark(account)
        grant = self.ledger.reserve(Hold(run, account, amount, "agent"), this_process(), available=available, mark=mark)
        if grant.admitted:
            self._held.append(run)
        return grant.admitted

    def forget(self) -> None:
        self._held.clear()

    def renew(self) -> list[str]:
        return sorted(self.ledger.renew(this_process(), self._held))

    def renew_always(self, every: float) -> None:
        def renewing() -> None:
            while True:
                time.sleep(every)
                self.ledger.renew(this_process(), self._held)

        threading.Thread(target=renewing, daemon=True).start()

    def release(self, run: str) -> bool:
        return self.ledger.release(run)

    def sweep(self, account: str = "a") -> int:
        return len(self.ledger.sweep(account))

    def freeze(self) -> None:
        from freezegun import freeze_time

        self._frozen = freeze_time("2031-01-01").start()

    def tick(self, seconds: float) -> float:
        self._frozen.tick(seconds)
        return time.monotonic()

    def transaction(self) -> None:
        """Stay in the middle of a verb that writes, holding every lock there is, until killed."""
        assert isinstance(self.ledger, SqliteLedger)
        with self.ledger._writing:
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
