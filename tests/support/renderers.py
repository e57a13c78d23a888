"""How a team's tools show an exception with the variables of its frames: in log files, on terminals, at error trackers."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable

import rich.traceback
import sentry_sdk.serializer
import sentry_sdk.utils
import stackprinter
import structlog.tracebacks

LONG = 100_000


def _python(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def _rich(error: BaseException) -> str:
    """What its tracebacks are made of: to lay them out on a terminal takes a quarter of a second."""
    trace = rich.traceback.Traceback.extract(
        type(error), error, error.__traceback__, show_locals=True, locals_max_length=LONG, locals_max_string=LONG
    )
    frames = [frame for stack in trace.stacks for frame in stack.frames]
    shown = [f"{name} = {value}" for frame in frames for name, value in (frame.locals or {}).items()]
    return "\n".join([*(f"{stack.exc_type}: {stack.exc_value}" for stack in trace.stacks), *shown])


def _structlog(error: BaseException) -> str:
    transform = structlog.tracebacks.ExceptionDictTransformer(
        show_locals=True, locals_max_length=LONG, locals_max_string=LONG
    )
    return json.dumps(transform((type(error), error, error.__traceback__)))


def _stackprinter(error: BaseException) -> str:
    return stackprinter.format((type(error), error, error.__traceback__), show_vals="all", truncate_vals=LONG)


def _sentry(error: BaseException) -> str:
    options = {"include_local_variables": True, "include_source_context": True, "max_value_length": LONG}
    event, _ = sentry_sdk.utils.event_from_exception(error, client_options=options)
    return json.dumps(sentry_sdk.serializer.serialize(event, max_value_length=LONG))


RENDERERS: dict[str, Callable[[BaseException], str]] = {
    "traceback": _python,
    "rich": _rich,
    "structlog": _structlog,
    "stackprinter": _stackprinter,
    "sentry": _sentry,
}


def showing(error: BaseException, secret: str) -> list[str]:
    """The renderers that show the secret, from the first frame of creditguard on: the test's own frames know it."""
    shown = error.__traceback__
    while shown and "creditguard" not in shown.tb_frame.f_globals["__name__"].split("."):
        shown = shown.tb_next
    assert shown, "the error does not come from creditguard"
    error.__traceback__ = shown
    return [name for name, render in RENDERERS.items() if secret in render(error)]
