"""The account: a pool of credits, what is shown of it, the tasks it paid for. Thread-safe, no I/O.

Three things make a real balance hard to read, and all three can be rehearsed here: the balance
shown may lag behind the pool, a failed task gives its credits back later, and strangers spend from
the same pool. Whatever is due at a time is applied when the account is next looked at, in the order
in which it fell due, so no timer thread is needed.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Literal

MAX_LAG = 1000  # readings remembered

Status = Literal["completed", "failed", "pending"]


class CannotPay(Exception):
    """The pool holds less than a task costs."""


@dataclass(slots=True)
class Task:
    """A generation task. Times are readings of the account's clock."""

    id: str
    model: str
    credits_used: int
    created: float
    updated: float
    status: Status = "pending"
    completed: float | None = None
    credits_refunded: int = 0


class Account:
    """One prepaid account. The first six attributes may be set at any time."""

    def __init__(self, amount: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.submit_cost: int = 8  # what a submit costs unless it says otherwise
        self.refund_delay: float = 0.0  # seconds between a task's failure and its refund
        self.task_seconds: float = 0.0  # how long a task is pending
        self.allow_negative: bool = False  # whether the pool may be overdrawn
        self.lag: int = 0  # how many readings the balance shown is behind
        self.fail_next_tasks: int = 0  # how many of the next submits become failed tasks
        self.balance_reads: int = 0
        self.spent: int = 0  # by submits; what strangers drain is not in it
        self.refunded: int = 0
        self._pool = amount
        self._seen = deque([amount], maxlen=MAX_LAG + 1)  # the pool at each reading
        self._tasks: dict[str, Task] = {}
        self._due: list[tuple[float, int, Callable[[float], None]]] = []  # a heap
        self._at_reading: defaultdict[int, list[Callable[[float], None]]] = defaultdict(list)
        self._order = itertools.count()  # settles ties in the heap
        self._lock = threading.Lock()
        self._clock = clock
        self._epoch = time.time() - clock()

    # The pool

    @property
    def credits(self) -> int:
        """The pool as it is, whatever is shown of it."""
        with self._lock:
            self._settle()
            return self._pool

    def read_balance(self) -> int:
        """One balance reading: what the balance request shows."""
        with self._lock:
            now = self._settle()
            self.balance_reads += 1
            for action in self._at_reading.pop(self.balance_reads, ()):
                action(now)
            self._seen.append(self._pool)
            return self._seen[max(0, len(self._seen) - 1 - self.lag)]

    def set_credits(self, amount: int) -> None:
        """Start over with this pool. Shown at once, whatever the lag."""
        with self._lock:
            self._settle()
            self._pool = amount
            self._seen.clear()
            self._seen.append(amount)

    def top_up(self, amount: int) -> None:
        with self._lock:
            self._settle()
            self._pool += amount

    def drain(self, amount: int) -> None:
        """Somebody else spends. Stops at 0 unless the pool may be overdrawn."""
        with self._lock:
            self._settle()
            self._drain(amount)

    def schedule(
        self,
        action: Literal["top_up", "drain"],
        amount: int,
        *,
        at_reading: int | None = None,
        after: float = 0.0,
    ) -> None:
        """Top up or drain just before the `at_reading`-th reading from now, or after a time."""

        def act(_when: float) -> None:
            if action == "drain":
                self._drain(amount)
            else:
                self._pool += amount

        with self._lock:
            now = self._settle()
            if at_reading is None:
                self._plan(now + after, act)
            else:
                self._at_reading[self.balance_reads + at_reading].append(act)

    # Tasks

    def submit(self, model: str, cost: int | None = None, outcome: Status | None = None) -> tuple[Task, int]:
        """Debit the pool and start a task. Answers the task and what remained at the debit."""
        with self._lock:
            now = self._settle()
            cost = self.submit_cost if cost is None else cost
            if cost > self._pool and not self.allow_negative:
                raise CannotPay(f"the task costs {cost} credits and {self._pool} remain")
            if outcome is None:
                outcome = "failed" if self.fail_next_tasks else "completed"
                self.fail_next_tasks = max(0, self.fail_next_tasks - 1)
            self._pool -= cost
            self.spent += cost
            remaining = self._pool
            task = Task(f"img_{secrets.token_hex(13).upper()}", model, cost, now, now)
            self._tasks[task.id] = task
            if outcome != "pending":
                self._plan(now + self.task_seconds, partial(self._end, task, outcome))
            return task, remaining

    def task(self, task_id: str) -> dict[str, object] | None:
        """The task object of the protocol, or None if there is no such task."""
        with self._lock:
            self._settle()
            task = self._tasks.get(task_id)
            return None if task is None else self._view(task)

    def tasks(self) -> list[dict[str, object]]:
        with self._lock:
            self._settle()
            return [self._view(task) for task in self._tasks.values()]

    # What follows is called with the lock held.

    def _plan(self, when: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), action))

    def _settle(self) -> float:
        """Apply what has fallen due. An action may plan another that is due already."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            when, _, action = heapq.heappop(self._due)
            action(when)
        return now

    def _drain(self, amount: int) -> None:
        self._pool -= amount if self.allow_negative else min(amount, max(self._pool, 0))

    def _end(self, task: Task, status: Status, when: float) -> None:
        task.status, task.completed, task.updated = status, when, when
        if status == "failed":
            self._plan(when + self.refund_delay, partial(self._refund, task))

    def _refund(self, task: Task, when: float) -> None:
        task.credits_refunded, task.updated = task.credits_used, when
        self._pool += task.credits_used
        self.refunded += task.credits_used

    def _view(self, task: Task) -> dict[str, object]:
        url = f"https://cdn.invalid/{task.id}.webp" if task.status == "completed" else None
        trouble = "the sandbox was told to fail this" if task.status == "failed" else None
        return {
            "task_id": task.id,
            "model": task.model,
            "status": task.status,
            "output": {"resultUrls": [url]} if url else None,
            "primary_url": url,
            "image_url": url,
            "error_message": trouble,
            "credits_used": task.credits_used,
            "credits_refunded": task.credits_refunded,
            "created_at": self._stamp(task.created),
            "updated_at": self._stamp(task.updated),
            "completed_at": None if task.completed is None else self._stamp(task.completed),
        }

    def _stamp(self, when: float) -> str:
        moment = datetime.fromtimestamp(self._epoch + when, timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
