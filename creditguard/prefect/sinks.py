"""Where the events of a guard inside Prefect go: to the log of the flow run or task run, and to Prefect's own events."""

from __future__ import annotations

import logging
from typing import Any

from creditguard.rules.events import Event
from creditguard.rules.ports import EventSink
from creditguard.sinks.host import log_record


class RunLog:
    """The log of one Prefect run: what is logged elsewhere never reaches Prefect's server."""

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self._logger = logger

    def emit(self, event: Event) -> None:
        """Log the event."""
        log_record(event, self._logger)


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
