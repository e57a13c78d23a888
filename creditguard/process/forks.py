"""What a forked child must make anew: locks that a thread of the parent may have held, threads, connections."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    def reset_after_fork(self) -> None:
        """Called in the child, before any of its own code runs. Must not touch what the parent still uses."""
        ...


_everyone: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def register(member: ForkAware) -> None:
    """Have `member.reset_after_fork()` called in every forked child, as long as the member lives."""
    _everyone.add(member)


def _in_child() -> None:
    for member in list(_everyone):
        member.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
