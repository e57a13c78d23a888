"""A guarded run inside of an Airflow task: labels of the task, errors that are not retried, and an end even when it is killed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from creditguard import settings
from creditguard.airflow import kills
from creditguard.airflow.context import current_context, labels
from creditguard.airflow.errors import OverBudget, final
from creditguard.airflow.masking import mask_settings
from creditguard.engine.ports import Ports
from creditguard.engine.readings import Readings
from creditguard.errors import BudgetExceeded, CreditGuardError
from creditguard.guarding.run import Run
from creditguard.rules.values import Outcome, Plan


def make_run(plan: Plan, ports: Ports) -> Run:
    """A run of the task that this code runs in; outside of a task, an ordinary one."""
    context = current_context()
    return Run(plan, ports) if context is None else TaskRun(plan, ports, context)


class TaskRun(Run):
    """A run of an Airflow task.

    It is closed once: by the job's end, or by `kill` when Airflow ends the task from outside, whichever comes first.
    """

    def __init__(self, plan: Plan, ports: Ports, context: Mapping[str, Any]) -> None:
        super().__init__(replace(plan, labels={**labels(context), **plan.labels}), ports)
        mask_settings(settings.current())
        self.killed = False
        self.__admitted = False
        self.__tickets = [True]  # who pops it closes the run; needs no lock, so a signal handler may
        self.__over = threading.Event()

    def open(self) -> None:
        kills.watch(self)
        try:
            super().open()
        except BaseException as error:
            self.__not_opened(error)
            raise
        self.__admitted = True

    async def aopen(self) -> None:
        kills.watch(self)
        try:
            await super().aopen()
        except BaseException as error:
            self.__not_opened(error)
            raise
        self.__admitted = True

    def __not_opened(self, error: BaseException) -> None:
        kills.forget(self)
        if isinstance(error, CreditGuardError) and (last := final(error)) is not error:
            raise last from None

    def close(self, outcome: Outcome) -> None:
        if self.__first():
            try:
                super().close(outcome)
            finally:
                self.__end()

    async def aclose(self, outcome: Outcome) -> None:
        if self.__first():
            try:
                await super().aclose(outcome)
            finally:
                self.__end()

    def kill(self) -> None:
        """Close the run at once: the process has seconds to live. The exit reading gets two of them."""
        if not self.__admitted or not self.__first():
            return
        self.killed = True
        readings = self._ports.readings
        try:
            # One reading, at once, with a deadline of its own.
            plan = replace(self._admission.plan, settle=0.0, settle_stable=False)
            self._admission = replace(self._admission, plan=plan)
            in_time = Readings(readings._source, readings._leases, readings._account, kills.READING)  # noqa: SLF001
            self._ports = replace(self._ports, readings=in_time)
            super().close("cancelled")
        finally:
            self.__over.set()

    def _exceeded(self, error: BudgetExceeded) -> BudgetExceeded:
        return OverBudget(*error.args)

    def __first(self) -> bool:
        """Whether the caller is the first to close the run. Who is not waits until it is closed."""
        try:
            self.__tickets.pop()
        except IndexError:
            self.__over.wait(kills.PATIENCE)
            kills.forget(self)
            return False
        return True

    def __end(self) -> None:
        self.__over.set()
        kills.forget(self)
