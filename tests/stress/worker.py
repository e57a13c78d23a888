"""The processes of the stress: guarded jobs one after the other, which spend what they declared, or part of it, over HTTP.

Run as a nursery: each line `SEED STATE` on stdin forks a worker, whose pid is answered. STATE is a file whose first byte says
whether a request to spend is on its way: the stress kills nobody then, since no ledger can know of a request that a dead
process has left behind.
"""

from __future__ import annotations

import logging
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

import httpx

sys.path.append(str(Path(__file__).parents[1] / "support"))

from broken_ledgers import Late, Outside

from creditguard import InsufficientCredits, LedgerUnavailable, guard
from creditguard.ledgers import open_ledger


class Slow(Outside):
    """Over a slow round trip to a server."""

    slowest = 0.1


BROKEN = {"released at admission": Late, "checked outside": Slow}


def main(seed, state_path, kind):
    logging.disable()  # refusals are its daily bread; what is on stderr after that is wrong
    chance = random.Random(seed)
    ledger = open_ledger(os.environ["CREDITGUARD_LEDGER"])
    if kind in BROKEN:
        ledger = BROKEN[kind](ledger)
    with Path(state_path).open("r+b") as file:
        state = mmap.mmap(file.fileno(), 1)
    api = httpx.Client(
        base_url=os.environ["CREDITGUARD_BASE_URL"],
        headers={"Authorization": f"Bearer {os.environ['APIMALL_API_KEY']}"},
    )
    while True:
        budget = chance.choice([5, 20, 40, 60])
        try:
            with guard("stress", budget=budget, ledger=ledger, account="stress"):
                left = budget if chance.random() < 0.7 else chance.randrange(budget)
                while left:
                    part = left if chance.random() < 0.5 else chance.randint(1, left)
                    state[0] = 1
                    answer = api.post("/api/v1/images/generate", json={"prompt": "x", "credits": part})
                    state[0] = 0
                    answer.raise_for_status()
                    left -= part
                if chance.random() < 0.3:
                    time.sleep(chance.random() * 0.05)
        except (InsufficientCredits, LedgerUnavailable):
            time.sleep(chance.random() * 0.01)


def nursery(kind):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed: the kernel clears them away
    with guard("warm", budget=0, account="warm"):
        pass  # all is imported, a client and a ledger are open: the workers' own come after the fork
    for line in sys.stdin:
        seed, state_path = line.split()
        pid = os.fork()
        if pid == 0:
            main(int(seed), state_path, kind)
        print(pid, flush=True)


if __name__ == "__main__":
    nursery(sys.argv[1])
