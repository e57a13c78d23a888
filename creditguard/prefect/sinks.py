"""Where the events of a guard inside Prefect go: to the log of the flow run or task run, and to Prefect's own events."""

from __future__ import annotations

import json
import logging
from typing import Any

from creditguard.rules.events import Event, Level
from creditguard.rules.ports import EventSink
from creditguard.rules.sentences import sentence


class RunLog:
    """The log of one Prefect run. A message is the event's sentence, and in a second line its name and its fields as JSON: of a
    record Prefect's server keeps the message alone. Each field is an attribute of the record, too, for formatters that make use
    of them.

    `refusals` is the level of `creditguard.refused`: where it was foreseen it is no error.
    """

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[Any], refusals: Level = "error") -> None:
        self._logger = logger
        self._refusals = refusals

    def emit(self, event: Event) -> None:
        """Log the event."""
        log = getattr(self._logger, self._refusals if event.name == "creditguard.refused" else event.level)
        extra = {"event": event.name, **event.fields}
        log("%s\n%s %s", sentence(event.name, event.fields), event.name, json.dumps(event.fields), extra=extra)


class RunEvents:
    """Prefect events, for its event feed and for automations. The guarded run is the resource, its account is related, and so
    (Prefect sees to that) are flow run, task run, deployment and tags. Passes each event on to the next sink first."""

    def __init__(self, following: EventSink) -> None:
        self._next = following

    def emit(self, event: Event) -> None:
        """Pass the event on, and put it in the queue of Prefect's own worker thread."""
        from prefect.events import emit_event

        fields = event.fields
        run = {
            "prefect.resource.id": f"creditguard.run.{fields['run_id']}",
            "prefect.resource.name": str(fields["job"]),
        }
        account = {
            "prefect.resource.id": f"creditguard.account.{fields['account']}",
            "prefect.resource.role": "creditguard-account",
        }
        try:
            self._next.emit(event)
        finally:
            emit_event(event.name, resource=run, related=[account], payload=fields)
