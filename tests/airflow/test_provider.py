"""What Airflow finds of the provider: connection type, form, decorator; and the hook."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from creditguard import AuthenticationError, ConfigurationError


def test_airflow_finds_the_provider(airflow) -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert "creditguard" in manager.providers
    hook = manager.hooks["apimall"]
    assert hook.hook_name == "API Mall"
    assert hook.connection_testable
    form = manager.field_behaviours["apimall"]
    assert form["relabeling"]["password"] == "API key"
    assert form["hidden_fields"] == ["login", "schema", "port"]


def test_the_provider_info_fits_airflows_schema(airflow) -> None:
    from importlib.resources import files

    import jsonschema

    from creditguard.airflow.provider import get_provider_info

    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_name_loads() -> None:
    import creditguard.airflow

    for name in creditguard.airflow.__all__:
        assert getattr(creditguard.airflow, name).__module__.startswith("creditguard.airflow")
    assert dir(creditguard.airflow) == creditguard.airflow.__all__
    with pytest.raises(AttributeError):
        creditguard.airflow.nothing  # noqa: B018


def test_hook_reads_the_balance(airflow, gateway) -> None:
    from creditguard.airflow import ApiMallHook

    hook = ApiMallHook("apimall_default")
    assert hook.get_balance().amount == 100
    assert asyncio.run(ApiMallHook().aget_balance()).amount == 100
    assert hook.test_connection() == (True, "100 credits left")
    gateway.fault(status=401)
    tested, message = hook.test_connection()
    assert not tested
    assert "401" in message
    with pytest.raises(AuthenticationError):
        hook.get_balance()


def test_hook_by_the_environment(airflow, env_gateway) -> None:
    from creditguard.airflow import ApiMallHook

    env_gateway.set_credits(7)
    assert ApiMallHook(None).get_balance().amount == 7


def test_a_connection_without_a_key_says_so(airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    from creditguard.airflow import ApiMallHook

    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", json.dumps({"conn_type": "apimall"}))
    with pytest.raises(ConfigurationError, match="password of connection 'empty'"):
        ApiMallHook("empty").get_balance()
    assert ApiMallHook("empty").test_connection()[0] is False


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        ({}, None),
        ({"host": "https://mall.example/gate"}, "https://mall.example/gate"),
        ({"host": "mall.example"}, "https://mall.example"),
        ({"host": "mall.example", "port": 8443}, "https://mall.example:8443"),
        ({"host": "127.0.0.1", "port": 80}, "http://127.0.0.1:80"),
        ({"host": "localhost", "schema": "https"}, "https://localhost"),
    ],
)
def test_the_gateway_of_a_connection(parts: dict, url: str | None) -> None:
    from creditguard.airflow.hooks import base_url_of

    assert base_url_of(SimpleNamespace(**{"host": None, "port": None, "schema": None, **parts})) == url


def test_a_connection_may_name_the_account(airflow, gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    from creditguard.airflow import guard

    connection = {
        "conn_type": "apimall",
        "host": gateway.url,
        "password": gateway.key,
        "extra": {"account": "the-team"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps(connection))
    with guard("job", budget=1, conn_id="team") as run:
        assert run.account == "the-team"
