"""A Prefect flow to copy: a gate in front, a guard around what spends, an artifact for every batch.

    pip install 'creditguard[prefect]'
    APIMALL_API_KEY=... python examples/prefect_flow.py

Images cost 8 credits here.
"""

from __future__ import annotations

from apimall import client, generate
from prefect import flow, task
from prefect.states import State

from creditguard import current_run
from creditguard.prefect import credit_gate, guard, retry_unless_short

COST = 8


@task(retries=2, retry_delay_seconds=10, retry_condition_fn=retry_unless_short)
@guard(budget=lambda prompts: COST * len(prompts))
def illustrate(prompts: list[str]) -> int:
    """Holds the budget of its batch while it runs; fails, without a retry, if the credits are not there."""
    with client() as api:
        for prompt in prompts:
            current_run().record(generate(api, prompt))
    return len(prompts)


@flow
def catalogue(batches: list[list[str]]) -> int | State:
    """Ends as Skipped, before anything is spent, when the account cannot carry all batches."""
    images = sum(len(batch) for batch in batches)
    if refusal := credit_gate("catalogue", budget=COST * images, on_short="skip"):
        return refusal
    return sum(illustrate.map(batches).result())


if __name__ == "__main__":
    catalogue([[f"{animal} {number}" for number in range(3)] for animal in ("cat", "dog")])
