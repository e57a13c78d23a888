"""Makes first_version.db, as the first version of the program left it: holds of owners that nobody can see any more, history, a
reading that was lent, totals beyond 64 bits.

    PYTHONPATH=first_version.zip python make.py first_version.db
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from decimal import Decimal

from creditguard.models import Balance, Hold, Mark, Owner, Reading

from creditguard.ledgers.sqlite import SqliteLedger

ledger = SqliteLedger(sys.argv[1])
owners = [Owner(f"owner{n}", "elsewhere", f"boot{n}", 100 + n, "5") for n in range(3)]
for number in range(90):
    account, job = ("pool", "other")[number % 2], f"job-{number % 4}"
    hold = Hold(f"run-{number:02}", account, 80_000_000 + number, job, {"team": "data", "café": number})
    assert ledger.reserve(hold, owners[number % 3], available=None, mark=None).admitted
    if number >= 8:
        report = {"run_id": hold.id, "job": job, "account": account, "outcome": "succeeded", "credits_consumed": number}
        ledger.settle(hold.id, account, report)
for number in range(11):  # the largest budgets
    ledger.reserve(Hold(f"large-{number}", "large", 10**18, "large"), owners[0], available=None, mark=None)
    if number:
        ledger.release(f"large-{number}")
ledger.renew(owners[1], ["run-01"])
balance = Balance(Decimal("123.456789"), "credits", datetime(2026, 11, 24, 12, tzinfo=timezone.utc), "req-1", "apimall")
ledger.publish("pool", Reading(balance, Mark(5, 4, 3, 2)))
ledger.close()
