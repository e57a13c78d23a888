"""docs/settings.md says what the model says, and its example works."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from creditguard import settings
from creditguard.settings import files
from creditguard.settings.model import Settings

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "settings.md").read_text()


def test_the_table_is_made_from_the_model():
    spec = spec_from_file_location("settings_table", DOCS / "settings_table.py")
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.TABLE.search(PAGE)
    assert script.renewed(PAGE) == PAGE, "docs/settings.md is not current: python docs/settings_table.py"
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([a-z_]+)` \|", PAGE, re.MULTILINE)
    assert rows == [(variable, setting) for setting, variable in settings.VARIABLES.items()]


def test_each_setting_says_what_it_is_for():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_page_names_every_file_and_the_variable_for_another(places):
    assert all(
        name in PAGE for name in (settings.CONFIG, "/etc/creditguard/config.toml", "creditguard.toml", "pyproject.toml")
    )
    assert str(files.user_file()).replace(str(places.home), "~") in PAGE


def test_the_example_works(places):
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    places.own.write_text(example)
    assert settings.current() == settings.CurrentSettings(timeout=5.0, keep=100, jobs={"nightly-enrich": 500})


def test_the_example_of_an_error_is_real(gateway, places, check):
    places.own.write_text("timeuot = 1")
    code, (line,) = check()
    assert code == 78
    assert line in PAGE
