"""Write the tables of docs/events.md anew, from the schema: `python docs/events_tables.py`. A test holds that they are current."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("events.md")
TABLES = re.compile(r"(?<=<!-- from the schema: python docs/events_tables.py -->\n).*?(?=<!-- so far -->)", re.DOTALL)
_ENVELOPE = {"event", "level", "timestamp"}


def tables() -> str:
    """The events, the fields that all of them have, and what each adds."""
    definitions: dict[str, Any] = json.loads(files("creditguard").joinpath("events.schema.json").read_text("utf-8"))[
        "$defs"
    ]
    shared = definitions.pop("run")
    lines = ["", "| event | level | when |", "|---|---|---|"]
    for name, event in definitions.items():
        level = event["properties"]["level"]
        lines.append(
            f"| `creditguard.{name}` | {', '.join(level.get('enum', [level.get('const')]))} | {event['description']} |"
        )
    lines += ["", "## Fields of every event", "", *fields(shared)]
    for name, event in definitions.items():
        own = {field: what for field, what in event["properties"].items() if field not in {*shared, *_ENVELOPE}}
        if own:
            lines += ["", f"## `creditguard.{name}` adds", "", *fields(own)]
    return "\n".join([*lines, "", ""])


def fields(of: dict[str, Any]) -> list[str]:
    """A row for each field, with the values that it may have where they are few."""
    rows = ["| field | meaning |", "|---|---|"]
    for name, field in of.items():
        values = ", ".join(f"`{value}`" for value in field.get("enum", ()))
        rows.append(f"| `{name}` | {field['description']}{values and f' ({values})'} |")
    return rows


def renewed(page: str) -> str:
    """The page with the tables as they should be."""
    return TABLES.sub(lambda _: tables(), page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
