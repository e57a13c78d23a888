"""What cannot be used is one line that names the variable, or the file and the field, and says what would be right."""

from __future__ import annotations

import os
import signal

import pytest

from creditguard import ConfigurationError, settings
from creditguard.rules.text import printable


def problem():
    with pytest.raises(ConfigurationError) as caught:
        settings.current()
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    assert caught.value.setting in str(caught.value)
    return str(caught.value)


IN_FILES = [
    ("timeout = 'soon'", "timeout in creditguard.toml must be a number of seconds, from 0 to 604800, not 'soon'"),
    ("timeout = true", "timeout in creditguard.toml must be a number of seconds, from 0 to 604800, not True"),
    ("timeout = 0", "timeout in creditguard.toml must be more than 0 and at most 600 seconds, not 0"),
    (f"timeout = 1{'0' * 400}", f"timeout in creditguard.toml must be a number of seconds, from 0 to 604800, not 1{'0' * 36}..."),
    ("min_interval = [1]", "min_interval in creditguard.toml must be a number of seconds, from 0 to 604800, not [1]"),
    ("max_age = nan", "max_age in creditguard.toml must be a number of seconds, from 0 to 604800, not nan"),
    ("settle = 'stabel'", "settle in creditguard.toml must be a number of seconds, 0 or more, or 'stable', or 'stable:120', not 'stabel'"),
    ("keep = nan", "keep in creditguard.toml must be a number of credits such as 500 or 0.25, not nan"),
    ("keep = 2026-11-24", "keep in creditguard.toml must be a number of credits, not datetime.date(2026, 11, 24)"),
    ("on_short = 'explode'", "on_short in creditguard.toml must be 'abort' or 'warn', not 'explode'"),
    ("on_unreadable = 1", "on_unreadable in creditguard.toml must be 'abort' or 'warn', not 1"),
    ("shrink = 'perhaps'", "shrink in creditguard.toml must be 'on' or 'off', not 'perhaps'"),
    ("shrink = 1", "shrink in creditguard.toml must be 'on' or 'off', not 1"),
    ("log_format = 'xml'", "log_format in creditguard.toml must be 'json', 'console' or 'none', not 'xml'"),
    ("account = ''", "account in creditguard.toml must be a name of 1 to 200 printable characters"),
    ("api_key = 5", "api_key in creditguard.toml must be text"),
    ("api_key = ''", "api_key in creditguard.toml is empty: it must hold the API Mall key"),
    ("api_key_file = ' '", "api_key_file in creditguard.toml must be text"),
    ("api_key = 'a'\nledger = 5", "ledger in creditguard.toml must be text"),
    ("api_key = 'a'\nbase_url = 'http://a.example'", "base_url in creditguard.toml must start with https:// (http is for loopback addresses only: the key goes with each request)"),
    ("api_key = 'a'\napi_key_file = 'b'", "api_key in creditguard.toml and api_key_file in creditguard.toml are both set: set one of them"),
    ("timeuot = 1", "timeuot in creditguard.toml is not a setting of creditguard; did you mean timeout?"),
    ("[Jobs.x]\nbudget = 1", "Jobs in creditguard.toml is not a setting of creditguard; did you mean jobs?"),
    ("Timeout = 1", "Timeout in creditguard.toml is not a setting of creditguard; did you mean timeout?"),
    ("frobnicate.deeply = 1", "frobnicate in creditguard.toml is not a setting of creditguard"),
    ('"a\\u001bb\\nc" = 1', r"a\x1bb\nc in creditguard.toml is not a setting of creditguard"),
    ("_cli_settings_source = 'x'", "_cli_settings_source in creditguard.toml is not a setting of creditguard"),
    ("[jobs.x]\nbudget = -1", "[jobs.x] budget in creditguard.toml must not be negative, not -1"),
    ("[jobs.x]\nbudget = {}", "[jobs.x] budget in creditguard.toml must be a number of credits, not {}"),
    ("[jobs.x]\nbudgte = 1", "[jobs.x] budgte in creditguard.toml is not a setting of creditguard; did you mean budget?"),
    ('[jobs."x\\ny"]\nbudgte = 1', r"[jobs.x\ny] budgte in creditguard.toml is not a setting of creditguard; did you mean budget?"),
    ("[jobs.x]\n", "[jobs.x] in creditguard.toml must be a table: [jobs.NAME] with budget = 500 below it"),
    ("jobs.x = 3", "[jobs.x] in creditguard.toml must be a table: [jobs.NAME] with budget = 500 below it"),
    ("jobs = 3", "jobs in creditguard.toml must be a table: [jobs.NAME] with budget = 500 below it"),
    ("not toml at all", "creditguard.toml cannot be read: it is not TOML: "),
    ("keep = 1\nkeep = 2", "creditguard.toml cannot be read: it is not TOML: "),
    (f"keep = {'[' * 5000}{']' * 5000}", "creditguard.toml cannot be read: it is nested too deeply"),
    (f"keep = {'{a=' * 5000}1{'}' * 5000}", "creditguard.toml cannot be read: it is nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), IN_FILES, ids=[text[:30] for text, _ in IN_FILES])
def test_in_a_file(places, text, message):
    places.own.write_text(text)
    said = problem()
    # What follows are the words of the TOML parser, or of repr, which differ by Python's version.
    assert said.startswith(message) if message.endswith(" ") else said == message


DOTTED = [
    (f"keep.{'a.' * 5000}a = 1", "keep in creditguard.toml must be a number of credits, not "),
    (f"timeout.{'a.' * 5000}a = 1", "timeout in creditguard.toml must be a number of seconds, from 0 to 604800, not "),
    (f"jobs.x.budget.{'a.' * 5000}a = 1", "[jobs.x] budget in creditguard.toml must be a number of credits, not "),
    (f"jobs.x.y.{'a.' * 5000}a = 1", "[jobs.x] y in creditguard.toml is not a setting of creditguard"),
    (f"frob.{'a.' * 5000}a = 1", "frob in creditguard.toml is not a setting of creditguard"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), DOTTED, ids=[text[:20] for text, _ in DOTTED])
def test_a_dotted_field_that_nests_tables_deeper_than_python_calls(places, text, message):
    """tomllib reads it; tomli, which serves Python 3.10, does not."""
    places.own.write_text(text)
    said = problem()
    assert said.startswith(message) or said == "creditguard.toml cannot be read: it is nested too deeply"


@pytest.mark.parametrize("place", ["user", "system", "named", "pyproject", "parent"])
def test_each_file_is_named(places, monkeypatch, place):
    path = {
        "user": places.user,
        "system": places.system,
        "named": places.home / "named.toml",
        "pyproject": places.work / "pyproject.toml",
        "parent": places.home / "creditguard.toml",
    }[place]
    if place == "named":
        monkeypatch.setenv("CREDITGUARD_CONFIG", str(path))
    name = "pyproject.toml" if place == "pyproject" else str(path)
    header = "[tool.creditguard]\n" if place == "pyproject" else ""
    path.write_text(f"{header}frobnicate = 1")
    assert problem() == f"frobnicate in {name} is not a setting of creditguard"
    path.write_text(f"{header}keep = 'some'")
    assert problem().startswith(f"keep in {name} must be a number of credits")
    path.write_text(f"{header}keep =")
    assert f"{name} cannot be read: it is not TOML: " in problem()


def test_a_mistake_in_a_field_that_another_place_overrides_is_none_but_a_misspelt_field_is(places):
    places.system.write_text("keep = 'some'\n[jobs.x]\nbudget = -1")
    places.user.write_text("keep = 5\n[jobs.x]\nbudget = 1")
    assert settings.current().keep == 5
    places.system.write_text("keep = 'some'\nfrobnicate = 1")
    assert problem() == f"frobnicate in {places.system} is not a setting of creditguard"


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"keep = 1 # caf\xe9", "keep = 1".encode("utf-16")])
def test_a_file_that_is_not_utf_8(places, data):
    places.own.write_bytes(data)
    assert problem().startswith("creditguard.toml cannot be read: it is not UTF-8 text (")


def test_an_array_of_tables_in_pyproject(places):
    (places.work / "pyproject.toml").write_text("[[tool.creditguard]]\nkeep = 1")
    assert problem() == "tool.creditguard in pyproject.toml must be a table: [tool.creditguard]"


def large(path, size):
    path.write_bytes(b"#" * size)


UNREADABLE = [
    (os.mkfifo, "it is not a regular file"),
    (lambda path: path.mkdir(), "it is not a regular file"),
    (lambda path: path.symlink_to("/dev/zero"), "it is not a regular file"),
]


@pytest.mark.parametrize(
    ("make", "why"), [*UNREADABLE, (lambda path: large(path, (1 << 20) + 1), "it is larger than 1024 KiB")]
)
@pytest.mark.parametrize("place", ["own", "user", "system"])
def test_a_settings_file_that_is_no_file(places, place, make, why):
    path = getattr(places, place)
    make(path)
    assert problem() == f"{'creditguard.toml' if place == 'own' else path} cannot be read: {why}"


@pytest.mark.parametrize("make", [make for make, _ in UNREADABLE])
def test_a_pyproject_that_is_no_file_is_somebody_elses(places, make):
    make(places.work / "pyproject.toml")
    assert settings.current() == settings.CurrentSettings()


@pytest.fixture(params=[True, False], ids=["with the model", "without the model"])
def either_way(request, places):
    if request.param:
        places.own.write_text("timeout = 5")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        *[(make, f"cannot be read: {why}") for make, why in UNREADABLE],
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: large(path, (1 << 16) + 1), "cannot be read: it is larger than 64 KiB"),
        (lambda path: path.write_text("\n"), "is empty, it should hold the API key"),
        (lambda path: path.write_bytes(b"\xff"), "does not hold a key as text"),
    ],
)
def test_a_key_file_that_holds_no_key(either_way, places, monkeypatch, make, why):
    path = places.home / "key"
    make(path)
    monkeypatch.setenv("APIMALL_API_KEY_FILE", str(path))
    assert problem() == f"APIMALL_API_KEY_FILE: {path} {why}"


def test_a_key_file_is_never_waited_for(places, monkeypatch):
    """A FIFO without a writer, and one whose writer writes nothing: an alarm would end the wait with an error of its own."""
    fifo = places.home / "fifo"
    os.mkfifo(fifo)
    monkeypatch.setenv("APIMALL_API_KEY_FILE", str(fifo))
    for _ in range(2):
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waited"))
        signal.alarm(20)
        try:
            assert problem() == f"APIMALL_API_KEY_FILE: {fifo} cannot be read: it is not a regular file"
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        writer = os.open(fifo, os.O_RDWR)
    os.close(writer)


def test_a_key_file_with_two_lines(either_way, places, monkeypatch):
    (places.home / "key").write_text("two\nkeys\n")
    monkeypatch.setenv("APIMALL_API_KEY_FILE", "~/key")
    assert problem() == (
        f"the key in {places.home}/key (APIMALL_API_KEY_FILE) holds white space: give the key alone, without 'Bearer' or a line end"
    )


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb"])
def test_a_path_is_shown_on_one_line(either_way, places, monkeypatch, name):
    monkeypatch.setenv("APIMALL_API_KEY_FILE", name)
    assert problem() == f"APIMALL_API_KEY_FILE: {printable(name)} cannot be read: No such file or directory"


def test_two_keys(either_way, monkeypatch):
    monkeypatch.setenv("APIMALL_API_KEY", "one")
    monkeypatch.setenv("APIMALL_API_KEY_FILE", "/another")
    assert problem() == "APIMALL_API_KEY and APIMALL_API_KEY_FILE are both set: set one of them"
    monkeypatch.setenv("APIMALL_API_KEY", "")
    assert problem() == "APIMALL_API_KEY is empty: it must hold the API Mall key"


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("api_key", "", "APIMALL_API_KEY is empty: it must hold the API Mall key"),
        ("account", "two\nlines", "CREDITGUARD_ACCOUNT must be a name of 1 to 200 printable characters"),
        ("base_url", "gateway", "CREDITGUARD_BASE_URL must be a URL that starts with https://"),
        ("ledger", " ", "CREDITGUARD_LEDGER must be text"),
        ("timeout", "1e999", "CREDITGUARD_TIMEOUT must be a number of seconds, from 0 to 604800, not '1e999'"),
        ("shrink", "1", "CREDITGUARD_SHRINK must be 'on' or 'off', not '1'"),
        ("log_format", "x" * 99, f"CREDITGUARD_LOG_FORMAT must be 'json', 'console' or 'none', not '{'x' * 36}..."),
    ],
)
def test_in_a_variable(either_way, monkeypatch, setting, value, message):
    monkeypatch.setenv(settings.VARIABLES[setting], value)
    assert problem() == message


@pytest.mark.parametrize(
    "text", ["frobnicate = 1", "keep = 'some'", "not toml", f"keep = {'[' * 5000}", "base_url = 'https://a.example'"]
)
def test_the_command_line_ends_with_78_and_one_line(gateway, places, check, text):
    places.own.write_text(text)
    code, lines = check()
    assert (code, len(lines), sum(gateway.requests.values())) == (78, 1, 0)
    assert "creditguard.toml" in lines[0]


def test_two_keys_on_the_command_line(gateway, places, check, monkeypatch):
    monkeypatch.setenv("APIMALL_API_KEY_FILE", "/another")
    assert check() == (78, ["creditguard: APIMALL_API_KEY and APIMALL_API_KEY_FILE are both set: set one of them"])
