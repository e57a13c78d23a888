"""The key is nowhere but in the block, encrypted. This file runs last: the server's database holds what all tests left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import flow, task

from creditguard import InsufficientCredits
from creditguard.prefect import ApiMallCredentials, credit_gate_task, guard


def holders(roots: list[Path], text: str) -> Iterator[Path]:
    for root in roots:
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.is_file() and text.encode() in path.read_bytes():
                yield path


def test_the_key_is_nowhere(api, gateway, keys, server_database, prefect_home, tmp_path, capfd, caplog):
    credentials = ApiMallCredentials(key=gateway.key, base_url=gateway.url)
    credentials.save("secrecy", overwrite=True)

    @task(persist_result=True)
    def spend(block: ApiMallCredentials, amount: int) -> int:
        with block.guard("secret-tour", budget=amount, labels={"block": repr(block)}):
            return amount

    @flow(persist_result=True)
    def tour(block: ApiMallCredentials, name: str) -> None:
        print(block, name)
        credit_gate_task("secret-tour", budget=1, credentials=block)
        spend(block, 2)
        spend.submit(ApiMallCredentials.load(name), 3).wait()
        with guard("secret-tour", budget=1):
            pass
        gateway.fault(status=401, times=1)
        assert spend(block, 4, return_state=True).is_failed()
        with pytest.raises(InsufficientCredits):
            spend(block, 500)

    state = tour(credentials, "secrecy", return_state=True)
    assert state.is_completed(), state.message
    run_id = state.state_details.flow_run_id
    api.logs(run_id, "creditguard.finished")
    api.events(run_id, "creditguard.refused")

    bodies = {
        "logs": api.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [str(run_id)]}}}),
        "artifacts": api.artifacts(run_id),
        "events": api.events(run_id, "creditguard.finished"),
        "flow run": api.flow_run(run_id),
        "blocks": api.post("/block_documents/filter"),
    }
    texts = {name: json.dumps(body) for name, body in bodies.items()}
    texts |= {"output": "".join(capfd.readouterr()), "records": caplog.text}
    assert "**********" in texts["output"]
    assert "creditguard.finished" in texts["records"]
    for where, text in texts.items():
        assert not [key for key in keys if key in text], where

    roots = [*server_database.parent.glob(f"{server_database.name}*"), prefect_home, tmp_path]
    assert list(holders(roots, "secret-tour")), "the search itself finds nothing"
    assert len(keys) >= 1
    assert {key: list(holders(roots, key)) for key in keys if any(holders(roots, key))} == {}
