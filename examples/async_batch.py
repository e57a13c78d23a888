"""An asynchronous batch, at most four requests at a time, guarded as a decorated coroutine function.

python examples/async_batch.py 6
"""

from __future__ import annotations

import asyncio
import sys

from apimall import agenerate, async_client

from creditguard import current_run, guard

COST = 8


@guard(budget=lambda prompts: COST * len(prompts), labels={"team": "catalogue"})
async def illustrate(prompts: list[str]) -> int:
    run = current_run()
    gate = asyncio.Semaphore(4)

    async with async_client() as api:

        async def one(prompt: str) -> int:
            async with gate:
                used = await agenerate(api, prompt)
                run.record(used)
                return used

        return sum(await asyncio.gather(*(one(prompt) for prompt in prompts)))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    print(asyncio.run(illustrate([f"illustration {number}" for number in range(count)])), "credits")
