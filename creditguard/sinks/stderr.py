"""Events of the command line, on stderr: a JSON object a line, or lines for people (rendered by structlog)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Literal

from creditguard.rules.events import Event
from creditguard.rules.text import printable


class StderrSink:
    """Writes each event to stderr at once. A stderr that is closed or gone loses events, never the job."""

    def __init__(self, style: Literal["json", "console"]) -> None:
        self._render = _as_json if style == "json" else _console_renderer()

    def emit(self, event: Event) -> None:
        try:
            sys.stderr.write(self._render(event) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, a broken pipe, or none at all (sys.stderr is None)


def _as_json(event: Event) -> str:
    return json.dumps({"event": event.name, "level": event.level, "timestamp": _timestamp(), **event.fields})


def _timestamp() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_NOT_FOR_PEOPLE = {"schema", "request_id_before", "request_id_after"}


def _console_renderer() -> Callable[[Event], str]:
    import structlog

    colors = sys.stderr is not None and sys.stderr.isatty()
    render = structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, pad_event_to=24)

    def line(event: Event) -> str:
        fields = {
            name: printable(value) if isinstance(value, str) else value
            for name, value in event.fields.items()
            if value is not None and value != {} and name not in _NOT_FOR_PEOPLE
        }
        return str(
            render(None, event.level, {"timestamp": _timestamp(), "level": event.level, "event": event.name, **fields})
        )

    return line
