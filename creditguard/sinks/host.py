"""Where events go: to the host program's structlog, if it configured it; else to stdlib logging, if somebody listens there;
else to stderr, so that a program which set up no logging sees what was consumed. Never to stdout.

Nothing is configured here, and structlog is not even imported unless the host has done so: a library that calls
`structlog.configure` breaks the logs of the program that it is a guest in.
"""

from __future__ import annotations

import json
import logging
import sys

from creditguard.rules.events import Event
from creditguard.sinks.stderr import StderrSink, Style

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class HostSink:
    """Events as part of the host program's own log, under the logger name `creditguard`. `style` is that of stderr."""

    def __init__(self, style: Style | None = None) -> None:
        self._stderr = StderrSink(style)

    def emit(self, event: Event) -> None:
        """Log the event. What fails in the host's log set-up is the host's: it never reaches the job."""
        try:
            structlog = sys.modules.get("structlog")
            if structlog is not None and structlog.is_configured():
                getattr(structlog.get_logger("creditguard"), event.level)(event.name, **event.fields)
            elif logging.getLogger("creditguard").hasHandlers():
                log_record(event)
            else:
                self._stderr.emit(event)
        except Exception:
            logging.getLogger("creditguard").debug("an event could not be logged", exc_info=True)


def log_record(event: Event) -> None:
    """Through stdlib logging: `name {json}` as the message, so that no formatter loses a field, and each field as an
    attribute of the record, for formatters that make use of them."""
    logger = logging.getLogger("creditguard")
    level = _LEVELS[event.level]
    if logger.isEnabledFor(level):
        extra = {"event": event.name, **event.fields}
        logger.log(level, "%s %s", event.name, json.dumps(event.fields), extra=extra)
