"""The Python of docs/prefect.md runs, one example after the other, and does what the page says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

_PAGE = Path(__file__).parents[2] / "docs" / "prefect.md"


@pytest.fixture
def page(api, gateway) -> dict[str, Any]:
    def call(row: object) -> dict[str, int]:
        gateway.drain(2)
        return {"credits_used": 2}

    names = {"call": call, "key": gateway.key}
    for code in re.findall(r"^```python\n(.*?)^```", _PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(code.replace('account="studio"', f'base_url="{gateway.url}"'), str(_PAGE), "exec"), names)
    return names


def test_the_page(api, gateway, page):
    if not [each for each in api.post("/v2/concurrency_limits/filter") if each["name"] == "credits"]:
        api.post("/v2/concurrency_limits/", {"name": "credits", "limit": 1})
    flow = page["flow"]
    page["nightly"]([[1, 2], [3]])
    page["block_by_block"]([[1], [2]])
    asyncio.run(page["asynchronous"]([1]))
    page["fan_out"]([1, 2, 3])
    page["with_a_block"]([1])
    assert gateway.credits == 120 - 2 * 8
    assert page["gated"]([[1] * 60], return_state=True).name == "Skipped"
    assert page["gated"]([[1]], return_state=True).name == "Completed"
    skipped = flow(lambda: page["enrich_or_skip"]([1] * 60, return_state=True).name, name="skipping")
    assert skipped() == "Skipped"
    together = flow(lambda: page["alone"].map([[1], [2]]).result(), name="one-at-a-time")
    assert together() == ["account_delta", "account_delta"]
