"""Balance readings of one account, shared by all runs of the process that want one at the same time.

A run may share a request only if the request starts after the run asked: then the balance is never older than the question,
and the mark that is taken before it holds for all who share it. So whoever asks joins the *next* reading; the first to join
leads: waits for its turn, closes the batch to latecomers, marks the ledger, reads the balance and hands both to all.
Ten thousand runs that start at once make two requests at most.

A turn is not waited for beyond a quarter of the deadline: a request that hangs does not hold up those that come after it.
Threads share with threads, and the tasks of an event loop with each other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from creditguard.engine.leases import Leases
from creditguard.errors import BalanceUnavailable, CreditGuardError, LedgerError, SourceError
from creditguard.process import forks
from creditguard.rules.ports import AsyncBalanceSource, BalanceSource
from creditguard.rules.values import Balance, Mark, Reading

if TYPE_CHECKING:
    import anyio
    from anyio.lowlevel import RunVar


class _Signal(Protocol):
    def set(self) -> object: ...


SignalT = TypeVar("SignalT", bound=_Signal)


class _Answer(NamedTuple):
    """What the leader found, for everyone in the batch."""

    mark: Mark | LedgerError | None
    balance: Balance | BalanceUnavailable | None

    def deliver(self, *, marked: bool) -> Reading:
        if marked and isinstance(self.mark, LedgerError):
            raise _fresh(self.mark)
        if isinstance(self.balance, BalanceUnavailable):
            raise _fresh(self.balance)
        assert self.balance is not None  # noqa: S101 - skipped only if everyone in the batch wants a mark and there is none
        return Reading(self.balance, self.mark if marked and isinstance(self.mark, Mark) else None)


ErrorT = TypeVar("ErrorT", bound=CreditGuardError)


def _fresh(error: ErrorT) -> ErrorT:
    """A copy to raise: one exception raised in many threads would gather all their tracebacks."""
    return type(error)(*error.args)


class _Batch(Generic[SignalT]):
    """Those who will share the next reading."""

    def __init__(self, done: SignalT) -> None:
        self.done = done
        self.marked = False
        self.unmarked = False
        self.answer: _Answer | None = None  # None when done: the leader was interrupted

    def join(self, *, marked: bool) -> None:
        self.marked |= marked
        self.unmarked |= not marked


class _Turns:
    """The batch that gathers now, and the turn to read, of one event loop."""

    def __init__(self) -> None:
        import anyio

        self.next: _Batch[anyio.Event] | None = None
        self.turn = anyio.Lock()


class Readings:
    """Readings of one source for one account, each within `timeout` seconds."""

    def __init__(self, source: BalanceSource, leases: Leases, account: str, timeout: float) -> None:
        self._source = source
        self._leases = leases
        self._account = account
        self._timeout = timeout
        self._patience = timeout / 4
        self._run_var: RunVar[_Turns] | None = None
        self.reset_after_fork()
        forks.register(self)

    def reset_after_fork(self) -> None:
        """A thread of the parent may have been in the middle of a reading."""
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._next: _Batch[threading.Event] | None = None

    def read(self, *, marked: bool) -> Reading:
        """A reading that starts after this call, with a mark taken before it if `marked`.

        Raises LedgerUnavailable when the mark cannot be taken, BalanceUnavailable when the balance cannot be read.
        """
        while True:
            with self._lock:
                batch = self._next
                leads = batch is None
                if batch is None:
                    batch = self._next = _Batch(threading.Event())
                batch.join(marked=marked)
            if leads:
                self._lead(batch)
            else:
                batch.done.wait()
            if batch.answer:
                return batch.answer.deliver(marked=marked)

    def glance(self) -> tuple[Balance, Mark | None]:
        """The balance now, and then the ledger's mark, if it can be had: for the watch, within a fraction of a lease.

        Raises BalanceUnavailable. Shared with nobody, so that this shorter deadline is nobody else's.
        """
        ttl = self._leases.ledger.ttl
        balance = self._source.read(self._timeout if ttl is None else min(self._timeout, ttl / 6))
        mark = self._mark()
        return balance, mark if isinstance(mark, Mark) else None

    def _lead(self, batch: _Batch[threading.Event]) -> None:
        mine = False
        try:
            mine = self._turn.acquire(timeout=self._patience)
            self._close(batch)
            batch.answer = self._ask(batch)
        finally:
            if mine:
                self._turn.release()
            self._close(batch)
            batch.done.set()

    def _close(self, batch: _Batch[threading.Event]) -> None:
        with self._lock:
            if self._next is batch:
                self._next = None

    def _ask(self, batch: _Batch[threading.Event]) -> _Answer:
        mark = self._mark() if batch.marked else None
        if isinstance(mark, LedgerError) and not batch.unmarked:
            return _Answer(mark, None)
        try:
            return _Answer(mark, self._source.read(self._timeout))
        except Exception as error:
            return _Answer(mark, self._unavailable(error))

    async def aread(self, *, marked: bool) -> Reading:
        """As `read`, without blocking the event loop."""
        import anyio

        turns = self._turns()
        while True:
            batch = turns.next
            leads = batch is None
            if batch is None:
                batch = turns.next = _Batch(anyio.Event())
            batch.join(marked=marked)
            if leads:
                await self._alead(turns, batch)
            else:
                await batch.done.wait()
            if batch.answer:
                return batch.answer.deliver(marked=marked)

    def _turns(self) -> _Turns:
        from anyio.lowlevel import RunVar

        with self._lock:
            if self._run_var is None:
                self._run_var = RunVar(f"creditguard-readings-{id(self)}")
        try:
            return self._run_var.get()
        except LookupError:
            turns = _Turns()
            self._run_var.set(turns)
            return turns

    async def _alead(self, turns: _Turns, batch: _Batch[anyio.Event]) -> None:
        import anyio

        mine = False
        try:
            with anyio.move_on_after(self._patience):
                await turns.turn.acquire()
                mine = True
            if turns.next is batch:
                turns.next = None
            batch.answer = await self._aask(batch)
        finally:
            if mine:
                turns.turn.release()
            if turns.next is batch:
                turns.next = None
            batch.done.set()

    async def _aask(self, batch: _Batch[anyio.Event]) -> _Answer:
        from anyio import to_thread

        mark: Mark | LedgerError | None = None
        if batch.marked:
            mark = self._mark() if self._leases.immediate else await to_thread.run_sync(self._mark)
        if isinstance(mark, LedgerError) and not batch.unmarked:
            return _Answer(mark, None)
        try:
            if isinstance(self._source, AsyncBalanceSource):
                return _Answer(mark, await self._source.aread(self._timeout))
            return _Answer(mark, await to_thread.run_sync(self._source.read, self._timeout))
        except Exception as error:
            return _Answer(mark, self._unavailable(error))

    def _mark(self) -> Mark | LedgerError:
        try:
            return self._leases.mark(self._account)
        except LedgerError as error:
            return error

    def _unavailable(self, error: Exception) -> BalanceUnavailable:
        if isinstance(error, BalanceUnavailable):
            return error
        # A source of somebody else's that breaks its promise. Its message is left out: it may quote a URL with a key in it.
        return SourceError(f"source {self._source.name} failed with {type(error).__name__}")
