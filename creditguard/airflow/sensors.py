"""`CreditBalanceSensor`: wait until the account can carry a budget."""

from __future__ import annotations

from typing import Any

from creditguard.airflow.base import CreditOperator
from creditguard.airflow.sdk import PokeReturnValue


class CreditBalanceSensor(CreditOperator):
    """Wait until balance − held by others − keep ≥ budget. Takes no hold, and no worker slot while it waits.

    budget      the credits to wait for (templated)
    conn_id     the connection that holds the key; None for the environment's (templated)
    name        the job's name in events; `dag.task` if left out
    deferrable  wait in the triggerer, in one place for all tasks; Airflow's `[operators] default_deferrable` if left out
    All other options are those of `creditguard.guard` (keep and account templated).

    `mode` is "reschedule" unless said otherwise; `poke_interval`, `timeout` and `soft_fail` are those of every sensor. A gateway
    that cannot be reached is asked again like an account that is short; a rejected key fails the task without retries. Returns
    the answer: enough, reason, budget, balance, held_by_others, headroom, shortfall, unit.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("mode", "reschedule")
        super().__init__(**kwargs)

    def execute(self, context: Any) -> Any:
        return self._wait(context)

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Ask once."""
        return self._poked(self._ask())
