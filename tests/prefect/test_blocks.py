"""The block: registered by Prefect's own command, saved, loaded, masked, and used."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from prefect import flow, task
from prefect.blocks.abstract import CredentialsBlock
from pydantic import ValidationError

from creditguard.errors import AuthenticationError, ConfigurationError
from creditguard.prefect import ApiMallCredentials, credit_gate, retry_unless_short


@pytest.fixture
def credentials(gateway, monkeypatch) -> ApiMallCredentials:
    monkeypatch.delenv("APIMALL_API_KEY")  # so that only the block can have it
    monkeypatch.delenv("CREDITGUARD_BASE_URL")
    return ApiMallCredentials(key=gateway.key, base_url=gateway.url, account="studio")


def test_prefect_registers_it(api):
    command = [sys.executable, "-m", "prefect", "block", "register", "-m", "creditguard.prefect"]
    environment = {**os.environ, "PREFECT_API_URL": api.url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Successfully registered 1 block" in done.stdout
    block_type = api.get("/block_types/slug/apimall-credentials")
    assert block_type["name"] == "API Mall Credentials"
    assert block_type["documentation_url"].startswith("https://www.apimall.ai/docs/")
    assert block_type["logo_url"].endswith(".png")


def test_it_is_a_credentials_block(credentials):
    assert isinstance(credentials, CredentialsBlock)
    assert credentials.get_client() is credentials.source()


def test_its_key_is_masked(credentials, gateway):
    for shown in (repr(credentials), str(credentials), f"{credentials.source()!r}", credentials.model_dump_json()):
        assert gateway.key not in shown
    assert "**********" in repr(credentials)
    with pytest.raises(ValidationError) as rejected:
        ApiMallCredentials(keys=gateway.key)
    assert gateway.key not in str(rejected.value)


def test_saved_and_loaded(api, credentials, gateway):
    credentials.save("test", overwrite=True)
    (document,) = api.post("/block_documents/filter", {"block_documents": {"name": {"any_": ["test"]}}})
    assert document["data"]["key"] == "********"
    loaded = ApiMallCredentials.load("test")
    assert (loaded.key.get_secret_value(), loaded.base_url, loaded.account) == (gateway.key, gateway.url, "studio")
    assert gateway.key not in repr(loaded)
    assert loaded.source() is credentials.source()


def test_balances(credentials, gateway):
    assert credentials.balance().amount == 120
    gateway.drain(20)
    assert asyncio.run(credentials.abalance()).amount == 100
    gateway.fault(status=401, times=1)
    with pytest.raises(AuthenticationError):
        credentials.balance()


def test_guards_and_gates(api, credentials, gateway):
    credentials.save("guards", overwrite=True)

    @flow
    def main() -> str:
        block = ApiMallCredentials.load("guards")
        assert credit_gate("with-block", budget=100, credentials=block) is None
        with block.guard("with-block", budget=50) as run:
            gateway.drain(7)
        return run.account

    state = main(return_state=True)
    assert state.result() == "studio"
    (artifact,) = api.artifacts(state.state_details.flow_run_id)
    assert (artifact["table"]["account"], artifact["table"]["credits_consumed"]) == ("studio", 7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key": ""}, "key of the block is empty"),
        ({"key": "Bearer sk-0123456789"}, "key of the block holds white space"),
        (
            {"key": "https://gateway.apimall.ai"},
            "key of the block holds an address: that of the gateway belongs into base_url",
        ),
        ({"key": "sk-0123456789", "account": "https://gateway.apimall.ai"}, "account of the block holds an address"),
        ({"key": "sk-0123456789", "base_url": "http://example.org"}, "base_url of the block must start with https"),
        ({"key": "sk-0123456789", "base_url": "sk-0123456789"}, "base_url of the block"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence_and_not_retried(fields, message):
    block, calls = ApiMallCredentials(**fields), []
    for use in (block.balance, block.get_client, lambda: block.guard("never", budget=1)):
        with pytest.raises(ConfigurationError, match=message) as told:
            use()
        assert "sk-0123456789" not in str(told.value)
        assert "\n" not in str(told.value)

    @task(retries=2, retry_condition_fn=retry_unless_short)
    def spend() -> None:
        calls.append("called")
        with block.guard("never", budget=1):
            calls.append("started")

    with pytest.raises(ConfigurationError):
        flow(spend)()
    assert calls == ["called"]


def test_it_is_a_collection_of_prefect():
    from prefect.plugins import load_prefect_collections

    module = load_prefect_collections()["creditguard"]
    assert module.ApiMallCredentials is ApiMallCredentials
