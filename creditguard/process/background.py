"""What this process has to do now and then while jobs run, done by one daemon thread: leases renewed, balances watched.

The thread starts with the first chore and ends when none is left. It is a thread, and not a task of an event loop, because a
job may block its loop for longer than a lease. Chores are done one after the other, urgent ones first, and each must be
short: what may hang (a balance reading) brings its own deadline, well below a lease.

A host program may freeze or set the clock under us, for some threads even (freezegun does). So only the attendant's own
thread looks at it, and a wait that has lasted its time is over, whatever the clock says.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from creditguard.process import forks

Chore: TypeAlias = Callable[[], "float | None"]
"""Does something, and says in how many seconds to do it again; None for never."""

_AFTER_A_BUG = 60.0


@dataclass(slots=True, eq=False)
class _Entry:
    chore: Chore
    urgent: bool
    within: float | None
    """Seconds in which it was asked for; None once that is part of `due`."""
    due: float = math.inf


class Attendant:
    """The chores of this process, and the thread that does them."""

    def __init__(self) -> None:
        self.reset_after_fork()
        forks.register(self)

    def reset_after_fork(self) -> None:
        """Start with no chores and no thread: the parent's are the parent's."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._entries: list[_Entry] = []
        self._thread: threading.Thread | None = None

    def add(self, chore: Chore, delay: float, *, urgent: bool = False) -> None:
        """Do the chore in `delay` seconds. One that is waiting already is done then, if that is sooner."""
        with self._lock:
            waiting = next((entry for entry in self._entries if entry.chore == chore), None)
            if waiting is None:
                self._entries.append(_Entry(chore, urgent, delay))
            else:
                waiting.within = delay if waiting.within is None else min(delay, waiting.within)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="creditguard-attendant", daemon=True)
                self._thread.start()
            else:
                self._wake.set()

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            try:
                delay = entry.chore()
            except Exception:  # a bug of ours; the other chores go on
                logging.getLogger("creditguard").exception("a chore of the attendant failed")
                delay = _AFTER_A_BUG
            if delay is not None:
                self.add(entry.chore, delay, urgent=entry.urgent)

    def _next(self) -> _Entry | None:
        """Wait for the next chore and take it off the list; None when there is none left, and the thread is to end."""
        while True:
            with self._lock:
                if not self._entries:
                    self._thread = None
                    return None
                now = time.monotonic()
                for entry in self._entries:
                    if entry.within is not None:
                        entry.due, entry.within = min(entry.due, now + entry.within), None
                due = [entry for entry in self._entries if entry.due <= now]
                entry = min(due or self._entries, key=lambda each: (bool(due) and not each.urgent, each.due))
                wait = entry.due - now
                if wait <= 0:
                    self._entries.remove(entry)
                    return entry
                self._wake.clear()
            if not self._wake.wait(wait):
                with self._lock:
                    if entry in self._entries:
                        self._entries.remove(entry)
                        return entry


attendant: Attendant = Attendant()
