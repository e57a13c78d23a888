"""What Airflow finds of the provider: connection type, form, decorator; and the hook."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from creditguard import AuthenticationError, ConfigurationError


def test_airflow_finds_the_provider(airflow) -> None:
    from airflow.providers_manager import ProvidersManager

    from creditguard.airflow import ApiMallHook

    manager = ProvidersManager()
    assert "creditguard" in manager.providers
    hook = manager.hooks["apimall"]
    assert hook.hook_name == "API Mall"
    assert hook.connection_testable
    # 3.1 asks the hook where it makes the form, in its API server.
    form = manager.field_behaviours.get("apimall") or ApiMallHook.get_ui_field_behaviour()
    assert form["relabeling"]["password"] == "API key"
    assert form["hidden_fields"] == ["login", "schema", "port"]


def test_the_provider_info_fits_airflows_schema(airflow) -> None:
    from importlib.resources import files

    import jsonschema

    from creditguard.airflow.provider import get_provider_info

    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_plugin_serves_one_page_and_nothing_else(airflow) -> None:
    import httpx

    from creditguard.airflow.plugin import page

    async def answers() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(page), base_url="http://airflow") as browser:
            return [
                (await browser.get(path)).status_code for path in ("/creditguard/report?dag_id=a", "/creditguard/x")
            ]

    assert asyncio.run(answers()) == [200, 404]


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


WRONG = {
    "no key": ({}, "the password of connection 'wrong' must hold the API Mall key"),
    "another type": ({"conn_type": "http", "password": "SECRET"}, "is of type 'http'; it must be one of type API Mall"),
    "a URL in the password": ({"password": "https://gateway.example"}, "has a URL in its password"),
    "a URL in the schema": ({"password": "SECRET", "schema": "https://gateway.example"}, "has a URL in its schema"),
    "a key in the login": ({"login": "SECRET"}, "has something in its login; the API Mall key belongs in its password"),
    "a key that is none": ({"password": "SECRET two"}, "the password of connection 'wrong'"),
    "http to the world": ({"password": "SECRET", "host": "http://gateway.example"}, "the host of connection 'wrong'"),
    "a URL in the account": (
        {"password": "SECRET", "extra": {"account": "https://gateway.example"}},
        "has a URL in its extra field 'account'; the gateway's URL belongs in its host",
    ),
    "an account of numbers": (
        {"password": "SECRET", "extra": {"account": 7}},
        "must have text in its extra field 'account'",
    ),
}


@pytest.mark.parametrize(("fields", "sentence"), WRONG.values(), ids=WRONG)
def test_a_connection_that_cannot_be_used_says_so_in_a_line_and_shows_no_value(
    airflow, gateway, monkeypatch: pytest.MonkeyPatch, fields: dict, sentence: str
) -> None:
    from creditguard.airflow import ApiMallHook

    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps({"conn_type": "apimall", **fields}))
    before = gateway.balance_reads
    with pytest.raises(ConfigurationError) as refused:
        ApiMallHook("wrong").get_balance()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "SECRET" not in str(refused.value)
    assert ApiMallHook("wrong").test_connection()[0] is False
    result = airflow.run("with_connection", budget=1, conn_id="wrong")
    assert (result.state_of("enrich"), result.tries_of("enrich")) == ("failed", 1)
    assert gateway.balance_reads == before


def test_a_connection_that_is_not_there_is_not_looked_for_again(airflow) -> None:
    result = airflow.run("with_connection", budget=1, conn_id="nowhere")
    assert (result.state_of("enrich"), result.tries_of("enrich")) == ("failed", 1)


def test_what_airflows_form_sends_for_empty_fields_is_no_gateway(
    airflow, gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Port 0 and extra "{}", as the test button of Airflow 3 sends them."""
    from airflow.models.connection import Connection

    from creditguard.airflow import ApiMallHook

    fields = {"host": gateway.url, "login": "", "schema": "", "port": 0, "extra": "{}", "password": gateway.key}
    form = Connection(conn_id="form", conn_type="apimall", **fields)
    monkeypatch.setenv("AIRFLOW_CONN_FORM", form.get_uri())
    assert ApiMallHook("form").test_connection() == (True, "100 credits left")


def test_the_connections_other_name(airflow, gateway) -> None:
    from creditguard.airflow import ApiMallHook, CreditBalanceSensor, guard

    assert ApiMallHook(apimall_conn_id="apimall_default").get_balance().amount == 100
    assert CreditBalanceSensor(task_id="wait", budget=1, apimall_conn_id="other").conn_id == "other"
    with guard("job", budget=1, apimall_conn_id="apimall_default") as run:
        assert run.balance_before == 100


def test_a_ledger_that_cannot_be_sent_to_the_triggerer_is_refused_when_the_dag_is_parsed(airflow) -> None:
    from creditguard.airflow import CreditBalanceSensor

    with pytest.raises(ValueError, match="ledger=... cannot be sent to the triggerer"):
        CreditBalanceSensor(task_id="wait", budget=1, ledger="none", deferrable=True)
    with pytest.raises(ConfigurationError, match="watch"):
        CreditBalanceSensor(task_id="wait", budget=1, watch="often")


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
