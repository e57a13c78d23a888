"""Reserve and release as fast as can be: `hammer.py URL SECONDS`, says `ready`, is told when to start, prints figures."""

from __future__ import annotations

import json
import os
import sys
import time

from creditguard.ledgers import open_ledger
from creditguard.process.identity import this_process
from creditguard.rules.values import Hold


def main(url: str, seconds: float) -> None:
    ledger, me = open_ledger(url), this_process()
    ledger.mark("a")
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    time.sleep(max(start - time.monotonic(), 0))
    waits = []
    while (before := time.monotonic()) < start + seconds:
        run = os.urandom(8).hex()
        assert ledger.reserve(Hold(run, "a", 1, "job"), me, available=10**15, mark=None).admitted
        waits.append(time.monotonic() - before)
        ledger.release(run)
    ledger.close()
    print(json.dumps({"admissions": len(waits), "longest_ms": max(waits) * 1000}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
