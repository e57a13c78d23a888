"""The schema that ships with the package, for every event that a test meets."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema

_VALIDATOR = jsonschema.Draft202012Validator(
    json.loads(files("creditguard").joinpath("events.schema.json").read_text())
)


def validate_event(event: dict[str, object]) -> None:
    """Hold one event, with its `event` and `level`, against the schema."""
    _VALIDATOR.validate(event)
