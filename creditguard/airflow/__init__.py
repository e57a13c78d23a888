"""creditguard in Airflow (2.11 and 3): a provider whose gates fail, skip, wait and settle the way Airflow's own tasks do.

    from airflow.sdk import dag, task          # airflow.decorators on 2.11

    @task.credit_guard(budget="{{ params.budget }}", conn_id="apimall_default")
    def enrich(rows): ...

`guard` is `creditguard.guard` for code inside a task, `CreditGateOperator` asks before the tasks behind it, `CreditBalanceSensor`
waits for a top-up, `ApiMallHook` reads the balance.

Names are loaded on first use: a DAG file is parsed again and again, and nothing is ever read while it is.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from creditguard.airflow._guard import guard
    from creditguard.airflow.errors import KeyRejected, NotEnoughCredits, OverBudget
    from creditguard.airflow.hooks import ApiMallHook
    from creditguard.airflow.operators import CreditGateOperator
    from creditguard.airflow.sensors import CreditBalanceSensor
    from creditguard.airflow.triggers import CreditBalanceTrigger

__all__ = [
    "ApiMallHook",
    "CreditBalanceSensor",
    "CreditBalanceTrigger",
    "CreditGateOperator",
    "KeyRejected",
    "NotEnoughCredits",
    "OverBudget",
    "guard",
]

_HOMES = {
    "ApiMallHook": "hooks",
    "CreditBalanceSensor": "sensors",
    "CreditBalanceTrigger": "triggers",
    "CreditGateOperator": "operators",
    "guard": "_guard",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
