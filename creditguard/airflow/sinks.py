"""Events in a task's log: the sentence first, for Airflow's pages show the first words of a line and cut off or fold the rest."""

from __future__ import annotations

import sys

from creditguard.rules.events import ADMITTED, REFUSED, Event, Level, as_waiting
from creditguard.rules.sentences import sentence
from creditguard.sinks.host import HostSink, log_record


class TaskSink(HostSink):
    """Events as lines of the task's log: the sentence, and then the fields.

    The event's name is the field `event_name`, and the run's own id `guard_run_id`: `run_id` is Airflow's word. `refusals` is the
    level of `creditguard.refused`: a skip that was asked for is no error.
    """

    def __init__(self, refusals: Level = "error") -> None:
        super().__init__()
        self._refusals = refusals

    def emit(self, event: Event) -> None:
        fields = {"event_name": event.name, **event.fields}
        fields["guard_run_id"] = fields.pop("run_id", None)
        level = self._refusals if event.name == REFUSED else event.level
        line = Event(sentence(event.name, event.fields), level, fields)
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            getattr(structlog.get_logger("creditguard"), line.level)(line.name, **line.fields)
        else:
            log_record(line)


class WaitingSink(TaskSink):
    """For those who ask again and again: being short is no error, and what was said is not said again until it changes.

    Who only asks (`asks_only`) has nothing to say when there is enough: Airflow says it.
    """

    def __init__(self, *, asks_only: bool) -> None:
        super().__init__()
        self._asks_only = asks_only
        self._last = ""

    def emit(self, event: Event) -> None:
        event = as_waiting(event) if event.name == REFUSED else event
        said = sentence(event.name, event.fields)
        if said == self._last or (event.name == ADMITTED and self._asks_only):
            return
        self._last = said
        super().emit(event)
