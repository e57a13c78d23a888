"""Balance readings of one account, shared by all runs of the process that want one at the same time.

A run may share a request only if the request starts after the run asked: then the balance is never older than the question,
and the mark that is taken before it holds for all who share it. So whoever asks joins the *next* reading. It starts at once if none
is under way, else when that one has ended; and not later than a quarter of the deadline, for a request that hangs does not hold up
those that come after it. A reading that is about to start waits a moment for those who are on their way to join it: ten thousand
runs that start at once make two requests at most.
"""

from __future__ import annotations

import _thread
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from creditguard.engine.desk import PARKED, Resume
from creditguard.engine.service import Call
from creditguard.errors import BalanceUnavailable, LedgerError, SourceError
from creditguard.process.background import seconds
from creditguard.rules.ports import BalanceSource
from creditguard.rules.values import Balance, Mark, Reading

if TYPE_CHECKING:
    from creditguard.engine.leases import Leases

_GRACE = 1.0
_CROWD = 8
_MOMENT = 0.03
"""Seconds for which a crowd that still grows is waited for."""
_MOST_AT_ONCE = 20
"""Readings under way in this process, of all accounts: the other service threads are for the ledgers and the events."""
_MOST_LEFT_BEHIND = 4
"""Readings of this process that have outlasted their deadline: a source that breaks its promise keeps no more threads than that."""


class _Batch:
    """Those who share the next reading: who goes on with it, and whether they want a mark before it."""

    def __init__(self, opened: float) -> None:
        self.members: list[tuple[Resume, bool]] = []
        self.opened = opened
        self.steps_back = 3
        """How often it lets those go first who may be about to join it."""
        self.counted = _CROWD
        """How many they were at the last look, if they were a crowd then."""

    @property
    def marked(self) -> bool:
        return any(marked for _, marked in self.members)

    @property
    def unmarked(self) -> bool:
        return not all(marked for _, marked in self.members)


class Readings:
    """Readings of one source for one account, each within `timeout` seconds."""

    def __init__(self, source: BalanceSource, leases: Leases, account: str, timeout: float) -> None:
        self.source: BalanceSource = source
        self.leases: Leases = leases
        self.timeout: float = timeout
        self.account: str = account
        self._patience = timeout / 4
        self._gathering = _thread.allocate_lock()  # taken by service threads alone
        self._next: _Batch | None = None
        self._under_way: dict[_Batch, float] = {}
        """The readings that have started, and until when each has to be back. One that is late holds up nobody."""

    def join(self, resume: Resume, *, marked: bool) -> Any:
        """Have `resume` called with a reading that starts after this call, its mark taken before it if `marked`; PARKED.

        Its failure is LedgerUnavailable when the mark cannot be taken, BalanceUnavailable when the balance cannot be read.
        """
        with self._gathering:
            batch = self._next
            first = batch is None
            if batch is None:
                batch = self._next = _Batch(seconds())
            batch.members.append((resume, marked))
            starts = first and not any(ends > seconds() for ends in self._under_way.values())
        if starts and not self.leases.engine.service.has_more():
            self._start(batch)
        elif starts:
            self.leases.engine.service.put(partial(self._start, batch))
        elif first:
            self.leases.engine.later(self._patience, partial(self._start, batch))
        return PARKED

    def glance(self, timeout: float) -> Balance:
        """The balance now, for the watch: shared with nobody, so that its shorter deadline is nobody else's.

        Raises BalanceUnavailable.
        """
        if self._are_too_many():
            raise SourceError(f"{self.source.name} is not asked: {_MOST_AT_ONCE} readings are under way")
        return self._ask(min(self.timeout, timeout))

    def _ask(self, timeout: float) -> Balance:
        """Read, with the promises of a source made good. Raises BalanceUnavailable."""
        source, engine = self.source, self.leases.engine
        deadlines = engine.readings_due
        now, me = seconds(), _thread.get_ident()
        if sum(ends < now for ends in list(deadlines.values())) >= _MOST_LEFT_BEHIND:
            raise SourceError(f"{source.name} is not asked: {_MOST_LEFT_BEHIND} readings have not come back yet")
        deadlines[me] = now + timeout + _GRACE
        try:
            return source.read(timeout)
        except BalanceUnavailable:
            raise
        except BaseException as error:
            # A source of somebody else's that breaks its promise. Its message is left out: it may quote a URL with a key in it.
            raise SourceError(f"source {source.name} failed with {type(error).__name__}") from None
        finally:
            del deadlines[me]
            with suppress(IndexError):  # nobody waits
                while not self._let_in(engine.readings_waiting.popleft()):
                    pass

    def _are_too_many(self) -> bool:
        """Whether a reading has to wait for one that is under way. One that could not even be asked for need not."""
        ends, now = list(self.leases.engine.readings_due.values()), seconds()
        return len(ends) >= _MOST_AT_ONCE and sum(end < now for end in ends) < _MOST_LEFT_BEHIND

    def _wait_for_a_place(self, call: Call) -> None:
        engine, entry = self.leases.engine, [call]
        engine.readings_waiting.append(entry)
        engine.later(self.timeout + _GRACE, partial(self._let_in, entry))  # should none come back

    def _let_in(self, entry: list[Call]) -> bool:
        """Have the call made that waits; whether it still did."""
        try:
            call = entry.pop()
        except IndexError:
            return False
        self.leases.engine.service.put(call)
        return True

    def _start(self, batch: _Batch) -> None:
        engine = self.leases.engine
        if seconds() - batch.opened < self._patience:
            start = partial(self._start, batch)
            if batch.steps_back and engine.service.busy():
                batch.steps_back -= 1
                engine.service.put(start)
                return
            if len(batch.members) > batch.counted:
                batch.counted = len(batch.members)
                engine.later(_MOMENT, start)
                return
        if self._next is batch and self._are_too_many():
            self._wait_for_a_place(partial(self._start, batch))
            return
        with self._gathering:
            if self._next is not batch:
                return  # it has started already
            self._next = None
            self._under_way[batch] = seconds() + self.timeout + _GRACE
        if not batch.marked:
            self._read(batch, None, None)
            return
        resume = partial(self._read, batch)
        try:
            mark = self.leases.mark(self.account, resume)
        except LedgerError as error:
            self._read(batch, None, error)
        else:
            if mark is not PARKED:
                self._read(batch, mark, None)

    def _read(self, batch: _Batch, mark: Mark | None, no_mark: Exception | None) -> None:
        balance: Balance | None = None
        failure: Exception | None = None
        if no_mark is None or batch.unmarked:
            if self._are_too_many():  # others have begun while the mark was taken
                self._wait_for_a_place(partial(self._read, batch, mark, no_mark))
                return
            try:
                balance = self._ask(self.timeout)
            except BalanceUnavailable as error:
                failure = error
        with self._gathering:
            del self._under_way[batch]
            following = self._next
        if following:
            self.leases.engine.service.put(partial(self._start, following))
        # The clock may keep the batch for a while, and shall not keep the runs.
        members, batch.members = batch.members, []
        alone = len(members) == 1

        def deliver(resume: Resume, marked: bool) -> None:
            trouble = (no_mark if marked else None) or failure
            if trouble is not None:
                resume(None, trouble if alone else _fresh(trouble))
            else:
                assert balance is not None  # noqa: S101 - skipped only if everybody wants a mark and there is none
                resume(Reading(balance, mark if marked else None), None)

        if alone:
            deliver(*members[0])
        else:
            self.leases.engine.service.make_all(partial(deliver, *member) for member in members)


def _fresh(error: Exception) -> Exception:
    """A copy to raise: one exception raised in many places would gather all their tracebacks."""
    return type(error)(*error.args)
