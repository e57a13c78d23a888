"""A synchronous batch, guarded as a block. Images cost 8 credits; the budget is worked out before anything is spent.

python examples/sync_batch.py 5
"""

from __future__ import annotations

import sys

from apimall import client, generate

from creditguard import InsufficientCredits, guard

COST = 8


def main(count: int) -> int:
    prompts = [f"thumbnail {number}" for number in range(count)]
    try:
        with guard("thumbnails", budget=COST * len(prompts)) as run, client() as api:
            for prompt in prompts:
                run.record(generate(api, prompt))
    except InsufficientCredits as short:
        print(f"not started: {short}", file=sys.stderr)
        return 75
    print(f"{run.report.credits_consumed} credits ({run.report.basis}), {run.report.balance_after} left")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
