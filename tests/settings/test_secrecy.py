"""No key and no password is in what an error path leaves behind: its message, and its frames as five renderers show them."""

from __future__ import annotations

import io
import sys
import traceback

import pytest
import rich.console
import rich.traceback
import structlog

from creditguard import ConfigurationError, settings

HUSH = "sk-hush-0123456789"
LEDGER = f"postgresql://me:{HUSH}@db.example/ledger"


def standard(error):
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def rich_locals(error):
    shown = rich.traceback.Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_string=None, locals_max_length=None, suppress=[],
    )  # fmt: skip
    console = rich.console.Console(file=io.StringIO(), width=400)
    console.print(shown)
    return console.file.getvalue()


def structlog_dicts(error):
    transform = structlog.tracebacks.ExceptionDictTransformer(
        show_locals=True, locals_max_length=10**6, locals_max_string=10**6
    )
    return repr(transform((type(error), error, error.__traceback__)))


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def frames(error):
    """All frames, those of suppressed exceptions too."""
    for one in chain(error):
        yield from (frame for frame, _ in traceback.walk_tb(one.__traceback__))


def plain_reprs(error):
    """As Sentry does: the repr of every local variable, and what a serializer would find inside of it."""
    return "\n".join(
        f"{name}={value!r}{inside(value)}" for frame in frames(error) for name, value in frame.f_locals.items()
    )


def inside(value):
    found = [repr(getattr(value, "__dict__", None)), repr(value._asdict() if hasattr(value, "_asdict") else None)]
    if isinstance(value, (dict, list, tuple, set)):
        found += [repr(one) for one in (value.items() if isinstance(value, dict) else value)]
    return "\n".join(found)


def message(error):
    return "\n".join(f"{one!r} {one} {one.args} {one.__dict__} {getattr(one, '__notes__', '')}" for one in chain(error))


RENDERERS = [standard, rich_locals, structlog_dicts, plain_reprs, message]


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
    error.__traceback__ = error.__traceback__.tb_next  # this test's own frame holds the case
    assert [frame.f_code.co_filename for frame in frames(error)], "there is nothing to be looked at"
    for render in RENDERERS:
        shown = render(error)
        assert "ConfigurationError" in shown or render is plain_reprs
        assert HUSH not in shown, f"{render.__name__} shows it: {shown}"
    assert error.__context__ is None


def test_the_renderers_would_show_it():
    def fails():
        key = HUSH
        raise ConfigurationError(key and "it is wrong", "it")

    with pytest.raises(ConfigurationError) as caught:
        fails()
    for render in RENDERERS[:4]:
        assert HUSH in render(caught.value)
    assert HUSH in message(ConfigurationError(HUSH))


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
