"""Where the events of a guard inside Prefect go: to the log of the flow run or task run, and to Prefect's own events."""

from __future__ import annotations

import json
import logging
from functools import partial

from creditguard.prefect.places import Place
from creditguard.rules.events import Event
from creditguard.rules.ports import EventSink

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class RunLog:
    """The log of one Prefect run: `name {json}` as the message, which is all that Prefect's server keeps of a record, and each
    field as an attribute of the record, for formatters that make use of them."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def emit(self, event: Event) -> None:
        """Log the event. A log that fails never reaches the job."""
        try:
            self._place.call(partial(self._log, event))
        except Exception:
            logging.getLogger("creditguard").debug("an event could not be logged", exc_info=True)

    def _log(self, event: Event) -> None:
        extra = {"event": event.name, **event.fields}
        self._place.logger.log(_LEVELS[event.level], "%s %s", event.name, json.dumps(event.fields), extra=extra)


class RunEvents:
    """Prefect events, for its event feed and for automations. The guarded run is the resource, its account is related, and so
    (Prefect sees to that) are flow run, task run, deployment and tags. Passes each event on to the next sink first."""

    def __init__(self, place: Place, following: EventSink) -> None:
        self._place = place
        self._next = following

    def emit(self, event: Event) -> None:
        """Pass the event on, and put it in the queue of Prefect's own worker thread."""
        self._next.emit(event)
        try:
            self._place.call(partial(_emit, event))
        except Exception:
            logging.getLogger("creditguard").debug("an event could not be given to Prefect", exc_info=True)


def _emit(event: Event) -> None:
    from prefect.events import emit_event

    fields = event.fields
    run = {"prefect.resource.id": f"creditguard.run.{fields['run_id']}", "prefect.resource.name": str(fields["job"])}
    account = {
        "prefect.resource.id": f"creditguard.account.{fields['account']}",
        "prefect.resource.role": "creditguard-account",
    }
    emit_event(event.name, resource=run, related=[account], payload=fields)
