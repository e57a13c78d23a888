"""What `check`, `run` and `wait` share: a guard made from options and settings, whose events go to stderr."""

from __future__ import annotations

import argparse
from typing import Any

from creditguard import settings as _settings
from creditguard.cli.screen import SCREEN
from creditguard.errors import ConfigurationError
from creditguard.guarding.guard import guard
from creditguard.ledgers import default_url, open_ledger
from creditguard.rules.events import Event
from creditguard.rules.ports import Ledger
from creditguard.sinks.stderr import StderrSink


class Events:
    """Events on stderr, for people on a terminal, else a JSON object a line; none if the settings say so."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises ConfigurationError if the settings cannot be used."""
        self._sink: StderrSink = StderrSink(_settings.current().log_format, SCREEN.write)
        self._quiet: bool = options.quiet
        self.told: bool = False
        """A person has read why the job does not start, and need not be told again."""

    def emit(self, event: Event) -> None:
        """Write the event; with --quiet only warnings and errors."""
        if event.level == "info" and self._quiet:
            return
        self._sink.emit(event)
        self.told = self.told or (event.level == "error" and self._sink.style == "console")


def guard_for(options: argparse.Namespace, name: str | None, sink: Events, **more: Any) -> guard:
    """The guard that the options ask for."""
    return guard(
        options.name or name,
        budget=options.budget,
        on_short=options.on_short,
        on_unreadable=options.on_unreadable,
        keep=options.keep,
        account=options.account,
        ledger=options.ledger,
        labels=dict(options.label),
        sink=sink,
        **more,
    )


def ledger_for(options: argparse.Namespace) -> Ledger:
    """The ledger that the options or the settings name; the default one otherwise. Raises ConfigurationError for `none`."""
    named = _settings.current().ledger
    ledger = open_ledger(options.ledger or (named.get_secret_value() if named else default_url()))
    if ledger.name == "none":
        message = "CREDITGUARD_LEDGER is none, which remembers nothing: name a ledger, as in sqlite:///PATH or postgresql://..."
        raise ConfigurationError(message, "CREDITGUARD_LEDGER")
    return ledger
