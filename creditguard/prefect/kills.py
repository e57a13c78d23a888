"""What becomes of guarded runs when Prefect ends their flow: cancelled in the UI, a worker or a container shut down.

Prefect turns SIGTERM into an exception in the flow's main thread, which ends guards there like any other. But tasks that were submitted
or mapped run in threads, and no Python program can interrupt a thread: Prefect's task runner waits for them until the process is
killed, 30 seconds later, or 10 in a container. So the runs that are still open a moment after the signal are closed from outside.

Prefect's signal handler stays where it is (Prefect does not take a flow for cancelled if there is another in front of it). The
signal is seen where the task runner is told to cancel what it can, by the exception that is then on its way. Only where nobody
handles the signal, as in the processes of a pool, is there a handler of ours.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from creditguard.engine.engine import engine
from creditguard.guarding.run import Run

MOMENT = 3.0
"""Seconds after the signal for jobs to end by themselves, and so with the right figure."""
PATIENCE = 4.0
"""Seconds for the rest: readings, ledger, log."""

_open: dict[str, tuple[weakref.ref[Run], Callable[[Run], object]]] = {}


def watch(run: Run, report: Callable[[Run], object], task_runner: Any) -> None:
    """From now on the run is settled, and `report(run)` is called, if a signal ends the flow of this task runner, or this process."""
    key = run.id
    _open[key] = weakref.ref(run, lambda _: _open.pop(key, None)), report
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)
    cancel_all = getattr(task_runner, "cancel_all", None)
    if cancel_all is None or "cancel_all" in vars(task_runner):
        return

    def cancelling() -> None:
        if _is_the_end(sys.exc_info()[1]):
            _settle_after(MOMENT)
        cancel_all()

    task_runner.cancel_all = cancelling


def forget(run: Run) -> None:
    """The run has its report."""
    _open.pop(run.id, None)
    if not _open and _in_main_thread() and signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_the_end(error: BaseException | None) -> bool:
    """Whether the process is to end, by the exception that is on its way out of the flow."""
    from prefect.exceptions import TerminationSignal

    if isinstance(error, TerminationSignal):
        return True
    if not isinstance(error, asyncio.CancelledError):
        return False
    # In an asynchronous flow the event loop raises the signal, as a rule, and asyncio cancels all tasks while it is on its way: there
    # the cancellation has it as its context, and that of a time limit has not.
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__context__
    return any(isinstance(each, TerminationSignal) for each in chain)


def _settle_after(delay: float) -> threading.Thread:
    def settle() -> None:
        time.sleep(delay)
        engine().settle_open_runs(PATIENCE)
        for reference, report in list(_open.values()):
            run = reference()
            if run and run._life.report:
                report(run)

    thread = threading.Thread(target=settle, name="creditguard-kill", daemon=True)
    thread.start()
    return thread


def _on_sigterm(number: int, _: FrameType | None) -> None:
    # It comes again: a pool sends it to all its processes as soon as one has ended.
    signal.signal(number, lambda *_: None)
    # In a thread of its own: what the signal has interrupted may hold any lock.
    _settle_after(0).join(2 * PATIENCE)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
