"""A client of API Mall as small as can be: enough for the examples to spend real credits (of a sandbox, for instance)."""

from __future__ import annotations

import os

import httpx


def settings() -> dict[str, object]:
    """Gateway and key come from the environment, where creditguard finds them, too."""
    base_url = os.environ.get("CREDITGUARD_BASE_URL", "https://gateway.apimall.ai")
    return {"base_url": base_url, "headers": {"Authorization": f"Bearer {os.environ['APIMALL_API_KEY']}"}}


def client() -> httpx.Client:
    return httpx.Client(**settings())


def async_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(**settings())


def credits_used(answer: httpx.Response) -> int:
    """What a submitted task was charged."""
    answer.raise_for_status()
    return int(answer.json()["data"]["credits_used"])


def generate(api: httpx.Client, prompt: str) -> int:
    """Submit one image; the credits that it used."""
    return credits_used(api.post("/api/v1/images/generate", json={"prompt": prompt}))


async def agenerate(api: httpx.AsyncClient, prompt: str) -> int:
    """As `generate`."""
    return credits_used(await api.post("/api/v1/images/generate", json={"prompt": prompt}))
