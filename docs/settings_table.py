"""Write the table of docs/settings.md anew, from the model: `python docs/settings_table.py`. A test holds that it is current."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

from pydantic.fields import FieldInfo

from creditguard.settings import VARIABLES
from creditguard.settings.model import Job, Settings

PAGE = Path(__file__).with_name("settings.md")
TABLE = re.compile(r"(?<=<!-- from the model: python docs/settings_table.py -->\n).*?(?=<!-- so far -->)", re.DOTALL)


def table() -> str:
    """A row for each setting, and for each field of a job."""
    rows = ["| environment | in a file | meaning | default |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if name in VARIABLES:
            rows.append(f"| `{VARIABLES[name]}` | `{name}` | {field.description} | {default(field)} |")
    for name, field in Job.model_fields.items():
        rows.append(f"| - | `[jobs.NAME]` `{name}` | {field.description} | - |")
    return "\n".join(rows) + "\n"


def default(field: FieldInfo) -> str:
    """As the model says it in words; else the value."""
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["default"])
    return f"{field.default:g}" if isinstance(field.default, (float, Decimal)) else f"`{field.default}`"


def renewed(page: str) -> str:
    """The page with the table as it should be."""
    return TABLE.sub(lambda _: table(), page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
