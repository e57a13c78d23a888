"""The arguments that the gate, the sensor and the guarded task share, and the guard that is made of them when they run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any, TypeVar

from creditguard.settings.options import GuardOptions, Options

if TYPE_CHECKING:
    from creditguard.airflow._guard import guard

G = TypeVar("G", bound="guard")
F = TypeVar("F", bound=Callable[..., None])

_TEMPLATED = ("budget", "keep", "account")


def takes_options(init: F) -> F:
    """Name the guard's options in the signature of an operator's `__init__(self, *, ..., **options)`: Airflow looks there for
    what `default_args` and `partial()` may give."""
    signature = inspect.signature(init)
    *named, rest = signature.parameters.values()
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None)
        for name in GuardOptions.__annotations__
        if name not in signature.parameters
    ]
    init.__signature__ = signature.replace(parameters=[*named, *options, rest])  # type: ignore[attr-defined]
    return init


def split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The guard's options among an operator's keyword arguments, and the rest."""
    options = {name: value for name, value in arguments.items() if name in GuardOptions.__annotations__}
    return options, {name: value for name, value in arguments.items() if name not in options}


class Guarded:
    """What an operator has that makes a guard.

    budget      the credits that are needed (templated), or a callable that works them out
    conn_id     the connection that holds the key; None for the environment's (templated)
    name        the job's name in events
    and all else that `creditguard.guard` takes (keep and account templated)
    """

    template_fields: Sequence[str] = (*_TEMPLATED, "conn_id")
    ui_color = "#e9f5dc"

    def _take(self, name: str | None, conn_id: str | None, options: dict[str, Any]) -> None:
        """Take the guard's arguments. What cannot be a template is checked while the DAG file is parsed: raises
        ConfigurationError."""
        budget = options.get("budget")
        # Airflow would call a callable in a templated field with its own context.
        self._budget_of_call = budget if callable(budget) else None
        self.budget = None if callable(budget) else budget
        self.keep = options.get("keep")
        self.account = options.get("account")
        self.conn_id = conn_id
        self.job = name
        self.options = {option: value for option, value in options.items() if option not in _TEMPLATED}
        Options.of(self.options)

    def _guard(self, kind: type[G], **more: Any) -> G:
        budget = self.budget if self._budget_of_call is None else self._budget_of_call
        templated = {"budget": budget, "keep": self.keep, "account": self.account}
        return kind(self.job, conn_id=self.conn_id, **{**self.options, **templated, **more})


def one_of(word: str, words: Iterable[str]) -> str:
    """The word, if it is one of those that `on_short` may be. Raises ValueError."""
    if word not in words:
        raise ValueError(f"on_short must be one of {', '.join(words)}, not {word!r}")
    return word
