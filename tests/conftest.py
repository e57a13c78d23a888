"""For every test: an environment of its own, no ledger of the developer's, and every event held against the schema."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest

from creditguard.rules.events import Event
from creditguard.settings import CONFIG, VARIABLES
from creditguard.sinks.host import HostSink

_SCHEMA = json.loads(files("creditguard").joinpath("rules/events.schema.json").read_text())
_VALIDATOR = jsonschema.Draft202012Validator(_SCHEMA)


def validate_event(event: dict[str, object]) -> None:
    """Hold one event, with its `event` and `level`, against the schema that ships with the package."""
    _VALIDATOR.validate(event)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    ours = (*VARIABLES.values(), CONFIG, "CREDITGUARD_DEBUG", "CREDITGUARD_RUN_ID", "CREDITGUARD_RECORD_FILE")
    for variable in ours:
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture(autouse=True)
def _every_event_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    emit = HostSink.emit

    def checked(self: HostSink, event: Event) -> None:
        validate_event({"event": event.name, "level": event.level, **event.fields})
        emit(self, event)

    monkeypatch.setattr(HostSink, "emit", checked)
