"""creditguard in Prefect flows: guards, a gate, and a block for the key.

    from prefect import flow, task
    from creditguard.prefect import guard

    @task
    @guard(budget=500)
    def enrich(rows): ...

Names are loaded on first use: importing this package loads neither Prefect nor the rest of creditguard.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from creditguard.prefect.blocks import ApiMallCredentials
    from creditguard.prefect.gates import acredit_gate, credit_gate, credit_gate_task
    from creditguard.prefect.guards import guard
    from creditguard.prefect.states import refusal_state, retry_unless_short

__all__ = [
    "ApiMallCredentials",
    "acredit_gate",
    "credit_gate",
    "credit_gate_task",
    "guard",
    "refusal_state",
    "retry_unless_short",
]

_HOMES = {
    "ApiMallCredentials": "blocks",
    "acredit_gate": "gates",
    "credit_gate": "gates",
    "credit_gate_task": "gates",
    "guard": "guards",
    "refusal_state": "states",
    "retry_unless_short": "states",
}


_OLDEST = 3, 8


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # cheap: importlib is loaded in every interpreter

    if _HOMES[name] != "states":
        _check_prefect()
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def _check_prefect() -> None:
    """Raise ConfigurationError, when a flow is loaded and not when it has begun, where Prefect is missing or too old."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("prefect")
    except PackageNotFoundError:
        installed = "none"
    numbers = installed.split(".")[:2]
    if installed == "none" or (all(map(str.isdigit, numbers)) and tuple(map(int, numbers)) < _OLDEST):
        from creditguard.errors import ConfigurationError

        oldest = ".".join(map(str, _OLDEST))
        message = f"creditguard.prefect needs Prefect {oldest} or later, and {installed} is installed: pip install 'creditguard[prefect]'"
        raise ConfigurationError(message, "prefect")


def __dir__() -> list[str]:
    return __all__
