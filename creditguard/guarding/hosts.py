"""Where an orchestrator registers what a guarded run knows more, and does otherwise, in it.

A host is what one run sees of the orchestrator that it runs in: its labels, its log, which errors it must not retry. The core
names no orchestrator but here: `_MODULES` says whose module has a function `here()`, which returns the host of the code that
calls it, or None. It is asked only where that orchestrator is loaded already. `_ENGINES` says whose objects run or send functions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

from creditguard.engine.engine import engine
from creditguard.errors import BudgetExceeded, CreditGuardError
from creditguard.rules.ports import EventSink
from creditguard.rules.values import Label, Outcome

if TYPE_CHECKING:
    from creditguard.guarding.run import Run

_MODULES = {"airflow": "creditguard.airflow.host", "prefect": "creditguard.prefect.host"}
_ENGINES = frozenset(
    {"airflow", "celery", "dagster", "dask", "distributed", "luigi", "prefect", "ray", "concurrent", "multiprocessing"}
)
_CANCELLATIONS = (("asyncio", "CancelledError"), ("trio", "Cancelled"), ("prefect.exceptions", "TerminationSignal"))
"""The exceptions by which frameworks cancel what runs in them: looked up where they are loaded, and never imported."""


class Host:
    """A plain program. An orchestrator overrides what it knows better; everything here is called in the job's own thread."""

    job: str | None = None
    """The job's name, where the caller gave none."""
    labels: Mapping[str, Label] = {}
    """Beside the caller's own, which win."""

    def sink(self, sink: EventSink) -> EventSink:
        """Where events go, given where they would go else."""
        return sink

    def opening(self, run: Run) -> None:
        """The run is about to ask for admission."""

    def refused(self, error: CreditGuardError) -> CreditGuardError:
        """The error that the job gets when it may not start."""
        return error

    def exceeded(self, error: BudgetExceeded) -> BudgetExceeded:
        """The error that the job gets when it is stopped."""
        return error

    def ended(self, run: Run) -> None:
        """The run has its report, or was refused."""

    async def aended(self, run: Run) -> None:
        """As `ended`, in a task."""
        self.ended(run)


PLAIN = Host()


_loaded: dict[str, Any] = {}


def here() -> Host:
    """The host of the code that calls this."""
    for orchestrator, module in _MODULES.items():
        if orchestrator in sys.modules:
            try:
                if module not in _loaded:  # not here: a time limit that interrupts an import may leave its lock taken
                    _loaded[module] = engine().elsewhere(partial(import_module, module))
                host: Host | None = _loaded[module].here()
            except ImportError:
                continue  # one without what the extra needs
            if host:
                return host
    return PLAIN


def engine_of(thing: object) -> str | None:
    """The engine whose own `thing` is: a function by where its code stands, an object by its class and those that it derives from."""
    if isinstance(thing, FunctionType):
        homes = [thing.__globals__.get("__name__")]
    else:
        homes = [kind.__module__ for kind in type(thing).__mro__]
    return next((root for home in homes if (root := str(home).partition(".")[0]) in _ENGINES), None)


def outcome_of(error: BaseException | None) -> Outcome:
    """How the job ended, by the exception that came out of it.

    `sys.exit(0)` is success. Cancelled are an interrupt, a generator that was closed before its end, a job that was stopped for
    what it spent, and a cancellation by a framework that is loaded.
    """
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "succeeded"
    found = (getattr(sys.modules.get(module), name, None) for module, name in _CANCELLATIONS)
    cancellations = (kind for kind in found if isinstance(kind, type))
    if isinstance(error, (KeyboardInterrupt, GeneratorExit, BudgetExceeded, *cancellations)):
        return "cancelled"
    return "failed"
