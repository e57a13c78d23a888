"""One of several processes that admit and settle on a ledger as fast as they can: contender.py LEDGER-URL SECONDS.

Says "ready", waits for a line on stdin, and prints how many runs it got through and how long the longest verb took.
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter

from creditguard.ledgers import open_ledger
from creditguard.process.identity import this_process
from creditguard.rules.values import Hold

if __name__ == "__main__":
    ledger = open_ledger(sys.argv[1])
    ledger.mark("bench")
    print("ready", flush=True)
    sys.stdin.readline()
    end = perf_counter() + float(sys.argv[2])
    count, longest, now = 0, 0.0, 0.0
    while now < end:
        hold = Hold(f"{os.getpid()}-{count}", "bench", 1_000_000, "bench")
        start = perf_counter()
        ledger.reserve(hold, this_process(), available=10**18, mark=ledger.mark("bench"))
        middle = perf_counter()
        ledger.settle(hold.id, "bench", {"run_id": hold.id, "job": "bench"})
        now = perf_counter()
        longest = max(longest, middle - start, now - middle)
        count += 1
    print(json.dumps({"runs": count, "longest": longest}))
