"""Ledgers whose rule of admission is broken on purpose: a stress that does not find them out proves nothing."""

from __future__ import annotations

import random
import time
from typing import Any

from creditguard.rules.ports import Ledger
from creditguard.rules.values import Grant, Hold, Mark, Owner


class Late:
    """What had been released is read at the admission, and not before the balance."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ledger, name)

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        return self.ledger.reserve(hold, owner, available=available, mark=None)


class Outside(Late):
    """The check is one transaction, the hold another, and some time passes between them."""

    slowest = 0.002

    def reserve(self, hold: Hold, owner: Owner, *, available: int | None, mark: Mark | None) -> Grant:
        assert available is not None
        assert mark is not None
        held = self.ledger.mark(hold.account).admitted - mark.released
        if available - held < hold.amount:
            return Grant(admitted=False, held_by_others=held)
        time.sleep(random.random() * self.slowest)
        self.ledger.reserve(hold, owner, available=None, mark=mark)
        return Grant(admitted=True, held_by_others=held)
