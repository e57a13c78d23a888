"""Events in a task's log: the sentence first, for Airflow's pages show the first words of a line and cut off or fold the rest."""

from __future__ import annotations

from collections.abc import Mapping

from creditguard.rules.events import ADMITTED, FINISHED, LEDGER_UNAVAILABLE, REFUSED, UNREADABLE, Event, Level, waiting
from creditguard.sinks.host import HostSink


class TaskSink:
    """Events as lines of the task's log. `levels` says which a person chose in place of the event's own: a skip that was asked
    for is no error.

    The message is the sentence; the event's name is the field `event_name`, and the run's id is `guard_run_id`, for `run_id`
    is Airflow's own word.
    """

    def __init__(self, levels: Mapping[str, Level] | None = None) -> None:
        self._levels = levels or {}
        self._host = HostSink()

    def emit(self, event: Event) -> None:
        fields = {"guard_run_id" if name == "run_id" else name: value for name, value in event.fields.items()}
        fields["event_name"] = event.name
        self._host.emit(Event(sentence(event), self._levels.get(event.name, event.level), fields))


class WaitingSink(TaskSink):
    """For those who ask again and again: being short is no error, being funded is told by Airflow itself, and what was said is
    not said again until it changes."""

    def __init__(self) -> None:
        super().__init__({UNREADABLE: "warning", LEDGER_UNAVAILABLE: "warning"})
        self._last = ""

    def emit(self, event: Event) -> None:
        if event.name == ADMITTED or sentence(event) == self._last:
            return
        self._last = sentence(event)
        super().emit(waiting(event) if event.name == REFUSED else event)


def sentence(event: Event) -> str:
    """The event as a person reads it."""
    fields = event.fields
    job, unit = fields["job"], fields["unit"]
    if event.name == ADMITTED:
        return f"{job}: admitted, {fields['budget']} of {_or_unknown(fields['headroom'])} {unit} held"
    if event.name == FINISHED:
        used = fields["credits_consumed"]
        if used is None:
            used = f"an unknown part of {fields['budget']}"
        left = "" if fields["balance_after"] is None else f", {fields['balance_after']} left"
        return f"{job}: consumed {used} of {fields['budget']} {unit}{left}"
    if fields.get("reason"):
        return f"{job}: {fields['reason']}"
    word = event.name.partition(".")[2].replace("_", " ")
    return f"{job}: {word}, needs {fields['budget']} {unit}, {_or_unknown(fields['headroom'])} are free"


def _or_unknown(figure: object) -> object:
    return "an unknown number" if figure is None else figure
