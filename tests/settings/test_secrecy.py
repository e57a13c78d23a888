"""No key and no password is in what an error path leaves behind: its message, and its frames as five renderers show them."""

from __future__ import annotations

import io
import sys

import pytest
import rich.console
from renderers import showing

from creditguard import ConfigurationError, settings

HUSH = "sk-hush-0123456789"
LEDGER = f"postgresql://me:{HUSH}@db.example/ledger"


CASES = {
    "a key with white space": ({"api_key": f"{HUSH} x"}, ""),
    "a key beyond ASCII": ({"api_key": f"{HUSH}é"}, ""),
    "a key with another line": ({"api_key": f"{HUSH}\n{HUSH}"}, ""),
    "two keys": ({"api_key": HUSH, "api_key_file": "/nowhere"}, ""),
    "a key file with two lines": ({"api_key_file": "two"}, ""),
    "a key file that is too large": ({"api_key_file": "large"}, ""),
    "a base URL with a password": ({"api_key": HUSH, "base_url": f"https://me:{HUSH}@gateway.example"}, ""),
    "an account beside a key and a ledger": ({"api_key": HUSH, "ledger": LEDGER, "account": "a\nb"}, ""),
    "a base URL beside a key and a ledger": ({"api_key": HUSH, "ledger": LEDGER, "base_url": "gateway"}, ""),
    "a number beside a key and a ledger": ({"api_key": HUSH, "ledger": LEDGER, "timeout": "soon"}, ""),
    "a key in a file": ({}, f"api_key = '{HUSH} x'"),
    "a key of the wrong type": ({}, f"api_key = ['{HUSH}']"),
    "a ledger of the wrong type": ({}, f"api_key = '{HUSH}'\nledger = ['{LEDGER}']"),
    "a misspelt key": ({}, f"api_kye = '{HUSH}'\nledgre = '{LEDGER}'"),
    "a misspelt field beside a key and a ledger": ({}, f"api_key = '{HUSH}'\nledger = '{LEDGER}'\nfrobnicate = 1"),
    "a job beside a key and a ledger": ({}, f"api_key = '{HUSH}'\nledger = '{LEDGER}'\n[jobs.x]\nbudgte = 1"),
    "two keys in a file": ({}, f"api_key = '{HUSH}'\napi_key_file = '/nowhere'"),
    "not TOML": ({"api_key": HUSH}, f"ledger = '{LEDGER}'\napi_key = {HUSH}"),
    "nested too deeply": ({}, f"api_key = '{HUSH}'\nkeep = {'[' * 5000}"),
    "not UTF-8": ({}, f"api_key = '{HUSH}' # \udcff"),
    "a ledger of a checkout": ({"api_key": HUSH}, f"ledger = '{LEDGER}'"),
    "a base URL of a checkout": ({"api_key": HUSH, "ledger": LEDGER}, f"base_url = 'https://{HUSH}.example'"),
    "an array of tables": ({"api_key": HUSH}, f"[[tool.creditguard]]\nledger = '{LEDGER}'"),
}  # fmt: skip


@pytest.mark.parametrize("ask", [settings.current, settings.explain])
@pytest.mark.parametrize("case", CASES)
def test_no_renderer_shows_a_secret(places, monkeypatch, case, ask):
    environment, text = CASES[case]
    (places.work / "two").write_text(f"{HUSH}\n{HUSH}\n")
    (places.work / "large").write_text(HUSH * 10000)
    name = "pyproject.toml" if "[tool" in text else "creditguard.toml"
    if text:
        (places.work / name).write_bytes(text.encode(errors="surrogateescape"))
    for setting, value in environment.items():
        monkeypatch.setenv(settings.VARIABLES[setting], value)
    with pytest.raises(ConfigurationError) as caught:
        ask()
    error = caught.value
    assert HUSH not in f"{error!r} {error} {error.args} {vars(error)}"
    assert showing(error, HUSH) == []
    assert error.__cause__ is None
    assert error.__context__ is None


def test_what_was_read_before_shows_no_secret_either(places, monkeypatch):
    monkeypatch.setenv("APIMALL_API_KEY", HUSH)
    assert settings.current().api_key.get_secret_value() == HUSH
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError) as caught:
        settings.current()
    assert showing(caught.value, HUSH) == []


@pytest.mark.parametrize("with_model", [True, False])
def test_what_is_in_force_and_its_explanation_show_no_secret(places, monkeypatch, with_model):
    monkeypatch.setenv("APIMALL_API_KEY", HUSH)
    monkeypatch.setenv("CREDITGUARD_LEDGER", LEDGER)
    if with_model:
        places.user.write_text("timeout = 5")
    found, explained = settings.current(), settings.explain()
    assert found.api_key.get_secret_value() == HUSH
    assert found.ledger.get_secret_value() == LEDGER
    console = rich.console.Console(file=io.StringIO(), width=400)
    console.print(found, explained, vars(sys.modules["creditguard.settings"])["_latest"])
    for shown in (repr(found), f"{found}", repr(explained), console.file.getvalue()):
        assert HUSH not in shown
