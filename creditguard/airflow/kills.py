"""What becomes of guarded runs when Airflow ends their task from outside: marked failed or cleared in the UI, a worker shut down.

Airflow sends the task's process a SIGTERM, and a SIGKILL five seconds later. On 3.x its handler only calls the operator's
`on_kill` and returns: the job runs on until it is killed, and no `with` block is ever left. So while a guarded run is open, a
handler of ours stands in front of Airflow's: it calls that one, has the engine close the runs that are open, and ends the job by
SystemExit.

Handlers can be set in the main thread only. Runs of other threads are closed too if one of the main thread is open, or if the
operator's `on_kill` calls `settle_open_runs` (as that of `@task.credit_guard` does).
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from types import FrameType

from creditguard.engine.engine import engine
from creditguard.guarding.run import Run

PATIENCE = 3.0
"""Seconds for the end of all open runs: the exit readings, the ledger and the log."""

_chain: _Chain | None = None
_opening: weakref.WeakSet[Run] = weakref.WeakSet()
"""Runs of the main thread, of which the engine may not know yet."""


def watch(run: Run) -> None:
    """From now on open runs are settled if the task is killed. Done in the main thread; in others this does nothing."""
    global _chain  # noqa: PLW0603 - a process has one handler for a signal
    if threading.current_thread() is threading.main_thread():
        _opening.add(run)
        if not (_chain and _chain.stands()):
            _chain = _Chain()


def forget(run: Run) -> None:
    """A run is over. When it was the last, Airflow's own handler is put back."""
    global _chain  # noqa: PLW0603
    if threading.current_thread() is threading.main_thread():
        _opening.discard(run)
        if _chain and not _any_is_open():
            _chain.undo()
            _chain = None


def _any_is_open() -> bool:
    return bool(engine().runs) or any(not run._life.entering.delivered for run in _opening)


def settle_open_runs() -> None:
    """Close all open runs as cancelled, within `PATIENCE`. The engine's threads do it, so a signal handler may ask for it,
    whatever the code that it interrupted holds."""
    engine().settle_open_runs(PATIENCE)


class _Chain:
    """A SIGTERM handler in front of the one that was there."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._handler = self._on_sigterm  # one object: each access to a method makes another
        self._before = signal.signal(signal.SIGTERM, self._handler)

    def stands(self) -> bool:
        """Whether nobody has put a handler of theirs in front of this one."""
        return signal.getsignal(signal.SIGTERM) is self._handler

    def undo(self) -> None:
        """Put the handler of before back, unless somebody has put theirs in front of ours."""
        if self.stands():
            signal.signal(signal.SIGTERM, self._before)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        # A forked child of the job has no run of its own; and a run that was interrupted may have left this handler behind.
        ours = os.getpid() == self._pid and _any_is_open()
        try:
            if callable(self._before):
                self._before(number, frame)
        finally:
            if ours:
                settle_open_runs()
        if ours or self._before is signal.SIG_DFL:
            raise SystemExit(128 + number)
