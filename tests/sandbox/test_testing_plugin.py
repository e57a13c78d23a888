"""The pytest plugin: what the fixture sets up, and how little the plugin costs everybody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import creditguard.sandbox

ROOT = Path(creditguard.sandbox.__file__).parents[2]
HEAVY = "{'httpx', 'pydantic', 'structlog', 'asyncio', 'ssl', 'http.server', 'sqlite3', 'anyio'}"

USE = """
import os, sys

assert not any(name.startswith("creditguard.sandbox") for name in sys.modules)


def test_the_environment_leads_to_the_gateway(credit_gateway, tmp_path):
    ours = {k: v for k, v in os.environ.items() if k.startswith(("CREDITGUARD_", "APIMALL_"))}
    assert ours == {
        "CREDITGUARD_BASE_URL": credit_gateway.url,
        "APIMALL_API_KEY": credit_gateway.key,
        "CREDITGUARD_LEDGER": f"sqlite:///{tmp_path}/ledger.sqlite3",
    }
    assert "127.0.0.1" in os.environ["NO_PROXY"].split(",")
    assert "127.0.0.1" in os.environ["no_proxy"].split(",")
    assert "intra.example" in os.environ["NO_PROXY"].split(",")


def test_the_gateway_answers_past_a_proxy(credit_gateway):
    import json, urllib.request

    request = urllib.request.Request(
        credit_gateway.url + "/api/v1/account/balances",
        headers={"Authorization": "Bearer " + os.environ["APIMALL_API_KEY"]},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert json.load(answer)["data"] == {"credits": 120, "api_credits": 120}
    credit_gateway.drain(120)
    assert credit_gateway.requests == {"/api/v1/account/balances": 1}


def test_every_test_has_its_own(credit_gateway):
    assert credit_gateway.credits == 120


def test_afterwards_all_is_as_before():
    assert os.environ["CREDITGUARD_MODE"] == "warn"
    assert os.environ["APIMALL_API_KEY"] == "of-the-developer"
    assert os.environ["NO_PROXY"] == "intra.example"
    assert "CREDITGUARD_BASE_URL" not in os.environ
"""


def run(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
    kept = {k: v for k, v in kept.items() if not k.startswith(("CREDITGUARD_", "APIMALL_", "PYTEST_"))}
    kept |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=kept,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_fixture_in_a_project_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "test_use.py").write_text(USE)
    result = run(
        *("-m", "pytest", "-q", "-W", "error", "-p", "creditguard.testing"),
        *("-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base"), "test_use.py"),
        cwd=tmp_path,
        CREDITGUARD_MODE="warn",
        APIMALL_API_KEY="of-the-developer",
        HTTP_PROXY="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9",
        NO_PROXY="intra.example",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout


def test_a_wildcard_for_no_proxy_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_use.py").write_text(
        "import os\ndef test_it(credit_gateway):\n    assert os.environ['NO_PROXY'] == '*'\n"
    )
    result = run(
        *("-m", "pytest", "-q", "-p", "creditguard.testing"),
        *("-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base"), "test_use.py"),
        cwd=tmp_path,
        NO_PROXY="*",
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_importing_the_plugin_brings_nothing_heavy_along() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import creditguard.testing;"
        "new = set(sys.modules) - before;"
        f"assert not new & {HEAVY}, new;"
        "assert not any(name.startswith('creditguard.sandbox') for name in new), new;"
        "print(*sorted(new))"
    )
    result = run("-c", program)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) == {"creditguard", "creditguard.testing"}
