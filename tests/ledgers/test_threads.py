"""A ledger object that was handed to a guard, and is asked by its owner as well."""

from __future__ import annotations

import threading

from creditguard import guard
from creditguard.ledgers.sqlite import SqliteLedger


def test_whoever_made_a_ledger_may_ask_it_while_guards_use_it(credit_gateway, tmp_path):
    """One SQLite connection in two threads at once ends the interpreter."""
    credit_gateway.set_credits(100_000)
    ledger = SqliteLedger(str(tmp_path / "mine.db"))
    job, over = guard("mine", budget=1, ledger=ledger), threading.Event()

    def look():
        while not over.is_set():
            ledger.holds()
            ledger.history(limit=50)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    for _ in range(100):
        with job:
            pass
    over.set()
    for looker in lookers:
        looker.join()
    assert len(ledger.history(limit=1000)) == 100
    assert ledger.holds() == []
    ledger.close()
