"""What becomes of guarded runs when Airflow ends their task from outside: marked failed or cleared in the UI, a worker shut down.

Airflow sends the task's process a SIGTERM, and a SIGKILL five seconds later. On 3.x its handler only calls the operator's
`on_kill` and returns: the job runs on until it is killed, and no `with` block is ever left. So while a guarded run is open, a
handler of ours stands in front of Airflow's: it calls that one, closes the runs that are open, and ends the job by SystemExit.

Handlers can be set in the main thread only. Runs of other threads are closed too if one of the main thread is open, or if the
operator's `on_kill` calls `settle_open_runs` (as that of `@task.credit_guard` does).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from creditguard.airflow.runs import TaskRun

READING = 2.0
"""Seconds for the exit reading of a run that is killed."""
PATIENCE = 3.0
"""Seconds for all of its end, the ledger and the log included."""

_open: list[TaskRun] = []
_chain: _Chain | None = None


def watch(run: TaskRun) -> None:
    """From now on the run is settled if the task is killed."""
    global _chain  # noqa: PLW0603 - a process has one handler for a signal
    if threading.current_thread() is threading.main_thread() and (_chain is None or not _open):
        if _chain:  # left behind by a run that ended in another thread
            _chain.undo()
        _chain = _Chain()
    _open.append(run)


def forget(run: TaskRun) -> None:
    """The run is over."""
    global _chain  # noqa: PLW0603
    if run in _open:
        _open.remove(run)
    if _chain and not _open and threading.current_thread() is threading.main_thread():
        _chain.undo()
        _chain = None


def settle_open_runs() -> None:
    """Close all open runs, within `PATIENCE`.

    In threads of their own: this may be called in a signal handler, and the code that it interrupted may hold any lock. If it
    does, the wait ends without an answer and the handler returns, the lock is given back, and the thread goes on.
    """
    ends = time.monotonic() + PATIENCE
    threads = [threading.Thread(target=run.kill, name="creditguard-kill", daemon=True) for run in list(_open)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(ends - time.monotonic(), 0.0))


class _Chain:
    """A SIGTERM handler in front of the one that was there."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._handler = self._on_sigterm  # one object: each access to a method makes another
        self._before = signal.signal(signal.SIGTERM, self._handler)

    def undo(self) -> None:
        """Put the handler of before back, unless somebody has put theirs in front of ours."""
        if signal.getsignal(signal.SIGTERM) is self._handler:
            signal.signal(signal.SIGTERM, self._before)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        ours = bool(_open) and os.getpid() == self._pid  # a forked child of the job has no run of its own
        try:
            if callable(self._before):
                self._before(number, frame)
        finally:
            if ours:
                settle_open_runs()
        if ours or self._before is signal.SIG_DFL:
            raise SystemExit(128 + number)
