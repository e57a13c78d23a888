"""`guard` for Prefect: the core's guard, through which `@flow` finds the types of the function's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from creditguard.guarding import guard as _guard

P = ParamSpec("P")
R = TypeVar("R")


class guard(_guard.guard):  # noqa: N801 - as the core's
    """`creditguard.guard`: the same options, the same runs (creditguard.prefect.host says what they know more in Prefect).

    Put it under `@task` or `@flow`:

        @task(retries=3, retry_condition_fn=retry_unless_short)
        @guard(budget=lambda rows: 2 * len(rows))
        def enrich(rows): ...
    """

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard each call of `function`, as the core's guard does."""
        guarded = super().__call__(function)
        # @flow looks up the names in annotations that are text where the wrapper lives, and not where the function does.
        guarded.__signature__ = _resolved(function)  # type: ignore[attr-defined]
        return guarded


def _resolved(function: Callable[..., Any]) -> inspect.Signature:
    """The function's signature, with the types of its parameters instead of their names."""
    signature, names = inspect.signature(function), getattr(inspect.unwrap(function), "__globals__", {})

    def resolved(annotation: Any) -> Any:
        try:
            return eval(annotation, names) if isinstance(annotation, str) else annotation  # noqa: S307 - as inspect does
        except Exception:  # a name for type checkers only, or of what is defined further down
            return annotation

    parameters = [each.replace(annotation=resolved(each.annotation)) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters)
