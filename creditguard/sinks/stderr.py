"""Events on stderr: a sentence a line for people on a terminal or in a notebook, else a JSON object a line."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Literal, TypeAlias

from creditguard.rules.events import Event
from creditguard.rules.sentences import sentence
from creditguard.rules.text import printable

Style: TypeAlias = Literal["json", "console", "none"]

_PREFIX = len("12:34:56 [warning] ")
_WIDE = 70
_EXACT = {"recorded", "account_delta"}


class StderrSink:
    """Writes each event to stderr at once, by `write` if there is one; `style` None: for people if stderr is a terminal or a
    notebook's. A stderr that is closed or gone loses events, never the job."""

    def __init__(self, style: Style | None = None, write: Callable[[str], object] | None = None) -> None:
        self._style = style
        self._write = write or _write
        self._console: Callable[[Event], str] | None = None

    def emit(self, event: Event) -> None:
        """Write the event."""
        try:
            line = self._render(event)
            if line:
                self._write(line)
        except (OSError, ValueError, AttributeError):
            pass  # closed, a broken pipe, or none at all (sys.stderr is None)

    @property
    def style(self) -> Style:
        """How events are written."""
        return self._style or ("console" if _is_read_by_a_person() else "json")

    def _render(self, event: Event) -> str:
        style = self.style
        if style == "json":
            return _as_json(event)
        if style == "none":
            return ""
        if self._console is None:
            self._console = _console_renderer()
        return self._console(event)


def _is_read_by_a_person() -> bool:
    """On a terminal, or under a cell of a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.partition(".")[0] == "ipykernel"


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _as_json(event: Event) -> str:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"event": event.name, "level": event.level, "timestamp": now, **event.fields})


def console_text(event: Event, width: int) -> str:
    """The sentence, and what else matters to a person: labels, and a basis that is not exact. Within `width` columns, what comes
    before it in its first line included."""
    fields = event.fields
    labels = fields.get("labels")
    more = (
        {name: value for name, value in labels.items() if value not in {None, ""}} if isinstance(labels, dict) else {}
    )
    basis = fields.get("basis")
    if (
        event.name.endswith(".finished")
        and basis not in _EXACT
        and fields.get("outcome") not in {"refused", "abandoned"}
    ):
        more["basis"] = basis
    text = printable(sentence(event.name, fields))
    if more:
        text = f"{text}  {' '.join(f'{printable(str(name))}={printable(str(value))}' for name, value in more.items())}"
    # On a narrow terminal the lines that follow begin further to the left: there the sentence needs all the room.
    indent = " " * (_PREFIX if width >= _WIDE else 2)
    lines = textwrap.wrap(
        text, max(width, 30), initial_indent=" " * _PREFIX, subsequent_indent=indent, break_on_hyphens=False
    )
    return "\n".join(lines).removeprefix(" " * _PREFIX)


def _columns() -> int:
    """Of stderr's terminal: stdout may be a file, or in a command's hands."""
    try:
        return int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _console_renderer() -> Callable[[Event], str]:
    import structlog
    from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter

    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    reset = structlog.dev.RESET_ALL if colors else ""
    dim = structlog.dev.DIM if colors else ""
    styles = ConsoleRenderer.get_default_level_styles(colors)
    levels = {level: styles[level] for level in ("info", "warning", "error")}  # it makes room for the longest of them
    render = ConsoleRenderer(
        columns=[
            Column("time", KeyValueColumnFormatter(None, dim, reset, str)),
            Column("level", LogLevelColumnFormatter(levels, reset)),
            Column("event", KeyValueColumnFormatter(None, "", "", str)),
            Column("", KeyValueColumnFormatter("", "", "", str)),
        ]
    )

    def line(event: Event) -> str:
        text = console_text(event, _columns())
        now = f"{datetime.now():%H:%M:%S}"  # noqa: DTZ005 - as the clock on the wall
        return str(render(None, event.level, {"time": now, "level": event.level, "event": text}))

    return line
