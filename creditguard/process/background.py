"""The timer thread: puts calls off until later. One daemon thread for the process, started by the first call that waits.

It calls what is due in its own thread, so that must be quick and never wait: as a rule a `put` into a queue. No signal reaches it,
and nothing in Python can freeze the clock that it goes by.
"""

from __future__ import annotations

import _thread
import heapq
import itertools
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from signal import SIG_BLOCK, pthread_sigmask, valid_signals
from time import CLOCK_MONOTONIC, clock_gettime
from typing import TypeAlias

Call: TypeAlias = Callable[[], object]

_LONGEST = 3600.0
"""Seconds for which it sleeps at once: no wait can be endless, and a lease may be."""

seconds: Callable[[], float] = partial(clock_gettime, CLOCK_MONOTONIC)
"""Seconds to bound waits by, which nothing in Python freezes (test libraries patch `time.monotonic`)."""


class Wake:
    """One thread waits for it, and others give it. Not SimpleQueue.get(timeout): CPython's waits for ever when a signal interrupts it
    after its time."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Wake who waits, or who comes to wait. Safe in finalizers and signal handlers."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it has been given before

    def wait(self, at_most: float) -> None:
        """Wait for it, for so many seconds at most."""
        self._lock.acquire(timeout=max(at_most, 0.0))


class Timer:
    """Calls to be made later."""

    def __init__(self) -> None:
        self._news: SimpleQueue[tuple[float, int, Call]] = SimpleQueue()
        self._numbers = itertools.count()
        self._threads: dict[str, int] = {}

    def start(self) -> None:
        """Start the thread, unless it runs. Raises RuntimeError when the system has no thread to give."""
        if not self._threads:
            self._threads.setdefault("timer", _thread.start_new_thread(self._run, ()))

    def works_here(self) -> bool:
        """Whether the calling thread is the one."""
        return _thread.get_ident() in self._threads.values()

    def later(self, delay: float, call: Call) -> None:
        """Make the call in `delay` seconds."""
        self._news.put((seconds() + delay, next(self._numbers), call))

    def at_once(self, call: Call) -> Callable[..., object]:
        """What has the call made, however often, in a single step: no signal interrupts it half way."""
        return partial(self._news.put, (0.0, next(self._numbers), call))

    def _run(self) -> None:
        me = _thread.get_ident()
        if self._threads.setdefault("timer", me) != me:
            return  # two have started it at once
        # A signal that arrives after the time to wait is over (all were stopped, by Ctrl-Z) makes CPython's queue wait for ever.
        pthread_sigmask(SIG_BLOCK, valid_signals())
        due: list[tuple[float, int, Call]] = []
        while True:
            try:
                wait = min(max(due[0][0] - seconds(), 0.0), _LONGEST) if due else None
                heapq.heappush(due, self._news.get(timeout=wait))
            except Empty:
                pass
            while due and due[0][0] <= seconds():
                heapq.heappop(due)[2]()
