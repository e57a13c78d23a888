"""The life of a run, from the pre-flight question to the report, as two generators of effects. Pure: nothing is done here.

    enter   mark the ledger, read the balance, reserve the budget -> Admission
              short?       drop dead owners' holds, read once more, decide again; then refuse, or start in warn mode
              no balance?  refuse (fail closed) or start (fail open), by `on_unreadable`, with an event either way
    leave   wait until settled, read the balance, mark the ledger, report, settle the hold -> Report
              settle="stable"?  read again until two readings agree, or the time is up

Two rules hold throughout. A run's id is chosen before anything is written and giving back a hold is idempotent, so whatever
breaks off a reservation (a caller that is gone, a lost answer), giving it back is always right. And nothing that goes wrong in
`leave` is raised: it becomes an event and a gap in the report, for the job's own result must come through.

The event that a job may start is the last thing before its admission is delivered: from then on there is a run to leave.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import TypeAlias

from creditguard.errors import (
    AuthenticationError,
    BalanceUnavailable,
    InsufficientCredits,
    LeaseLost,
    LedgerError,
    UnexpectedResponse,
)
from creditguard.rules import events
from creditguard.rules.admission import decide, spendable
from creditguard.rules.amounts import EXACT, ZERO, from_micro, to_micro, whole
from creditguard.rules.consumption import overlapping
from creditguard.rules.effects import (
    CutShort,
    Deliver,
    Emit,
    Extend,
    Flow,
    Now,
    Publish,
    Read,
    Recent,
    Release,
    Reserve,
    SetLagging,
    Settle,
    Sleep,
    Sweep,
    TakeMark,
    Usual,
)
from creditguard.rules.report import Report, drifted, lags, make_report, refused
from creditguard.rules.settling import (
    Ending,
    Exit,
    agrees_with_record,
    settled_by_readings,
    settled_by_time,
    trend_until_exit,
)
from creditguard.rules.values import Admission, Balance, Grant, Mark, Plan, Reading

Attempt: TypeAlias = Callable[[Admission], Flow[tuple[Admission, bool]]]

_CLAIM = 15.0
"""Seconds for which one process may be at reading a balance that others wait for."""
_POLL = 0.1
_PLACE = 5.0
"""Seconds for which a run that waits keeps its place in the queue at least, without asking again."""
_SHORTEST_INTERVAL = 0.01
"""Seconds between readings at least, where no politeness is asked for: a loop must not spin."""


def enter(plan: Plan) -> Flow[Admission]:
    """Decide whether the job may start, and hold its budget. The admission's `refusal` says why it may not."""
    admission = Admission(plan, started=(yield Now()))
    asked: list[Plan] = []
    try:
        admission = yield from _admit(admission, asked)
    except GeneratorExit:
        raise  # the flow was dropped: no effect can be performed any more
    except BaseException:
        yield from _give_back(asked)
        raise
    admission = admission._replace(started=(yield Now()))
    yield Deliver(admission)
    if isinstance(admission.refusal, InsufficientCredits):
        with suppress(LedgerError):  # it is tried again until the ledger has taken it
            yield Settle(refused(admission, admission.started))
    elif admission.refusal:
        yield from _give_back(asked)
    return admission


def ask(plan: Plan) -> Flow[Admission]:
    """Answer the pre-flight question without taking a hold: `creditguard check`."""
    admission, _ = yield from _when_it_fits(Admission(plan, started=(yield Now())), _look)
    return (yield from _verdict(admission, held=False, cite=True))


def _look(admission: Admission) -> Flow[tuple[Admission, bool]]:
    admission = yield from _read(admission, shared=True)
    if admission.shortfall and admission.held_by_others:
        admission = yield from _look_again(admission)
    return admission, not admission.shortfall


def _admit(admission: Admission, asked: list[Plan]) -> Flow[Admission]:
    """`asked` takes in the plan as soon as the ledger may have heard of it."""
    admission, granted = yield from _when_it_fits(admission, lambda before: _try(before, asked))
    short = admission.balance is not None and admission.shortfall and admission.plan.on_short == "abort"
    if not granted and not short and not admission.refusal and not admission.ledger_failed:
        asked.append(admission.plan)
        yield from _hold_regardless(admission)
    return (yield from _verdict(admission, held=granted))


def _when_it_fits(admission: Admission, attempt: Attempt) -> Flow[tuple[Admission, bool]]:
    """Try, and try again for as long as the plan says while the run is short, or no answer comes. With the last answer, or what
    the policy makes of there being none; and whether a hold was taken, or need not be."""
    started, slept, granted, ever_answered = admission.started, 0.0, False, False
    while True:
        failure: BalanceUnavailable | LedgerError | None = None
        try:
            admission, granted = yield from attempt(admission)
            ever_answered = True
        except (BalanceUnavailable, LedgerError) as error:
            failure = error
        if isinstance(failure, LedgerError) and admission.plan.ledger_optional and not ever_answered:
            # Nobody asked for it, so nobody waits for it either: not where it cannot be used. One that answered will again.
            yield Emit(events.ledger_unavailable(admission, failure, "passed_over", "before"))
            admission, attempt = Admission(admission.plan, admission.started, ledger_failed=True), _look_at_the_balance
            continue
        if not admission.plan.wait:
            break
        # What was slept has passed, whatever the clock says.
        left = admission.plan.wait - max((yield Now()) - started, slept)
        pause = _pause(admission, failure, granted=granted, left=left)
        if pause is None:
            break
        if not slept:
            yield Emit(events.waiting(admission, failure))
        yield Sleep(pause)
        slept += pause
    if isinstance(failure, LedgerError):
        return (yield from _without_ledger(admission, failure)), False
    if failure:
        return (yield from _without_balance(admission, failure)), False
    return admission, granted and not admission.ledger_failed


def _look_at_the_balance(admission: Admission) -> Flow[tuple[Admission, bool]]:
    admission = yield from _read(admission, marked=False)
    return admission, not admission.shortfall


def _try(admission: Admission, asked: list[Plan]) -> Flow[tuple[Admission, bool]]:
    admission = yield from _read(admission, shared=True)
    asked.append(admission.plan)
    admission, granted = yield from _reserve(admission)
    if not granted and admission.held_by_others:
        admission = yield from _look_again(admission)
        if not admission.shortfall:
            admission, granted = yield from _reserve(admission)
    return admission, granted


def _pause(
    admission: Admission, failure: BalanceUnavailable | LedgerError | None, *, granted: bool, left: float
) -> float | None:
    """How long to wait before the next try; None when there is none. A rejected key does not pass by waiting, and a source that
    says when to come back is not asked before."""
    plan = admission.plan
    short = failure is not None or (not granted and plan.on_short == "abort")
    if not short or left <= 0 or isinstance(failure, (AuthenticationError, UnexpectedResponse)):
        return None
    pause = _interval(plan)
    asked = failure.retry_after if isinstance(failure, BalanceUnavailable) else None
    if asked and asked > left:
        return None
    return min(max(pause, asked or 0.0), left)


def _interval(plan: Plan) -> float:
    """Seconds between two tries. Spread out: many that wait for the same top-up should not all ask in the same second."""
    return max(plan.min_interval, _SHORTEST_INTERVAL) * (1 + sum(map(ord, plan.run_id)) % 21 / 100)


def extend(admission: Admission, by: Decimal, unspent: Decimal = ZERO) -> Flow[Admission]:
    """Ask for more for a run that is under way, by the rules of admission. Raises InsufficientCredits, BalanceUnavailable or
    LedgerError, and then nothing has changed. `unspent` of its budget is counted where no ledger counts what it holds."""
    plan = admission.plan
    asked = admission._replace(plan=plan._replace(budget=by))
    micro = to_micro(by, up=True)
    for last in (False, True):
        reading: Reading = yield Read(marked=True)
        available = None if plan.on_short == "warn" else spendable(plan, reading.balance)
        grant: Grant = yield Extend(plan.run_id, micro, available, reading.mark)
        if grant.missing:
            raise LeaseLost("the run has no hold any more that could be extended", None, plan.run_id)
        held = grant.held_by_others or to_micro(unspent, up=True)
        asked = _decided(asked, reading.balance, held, reading.mark)
        if grant.admitted and (grant.held_by_others or available is None or not asked.shortfall):
            plan = plan._replace(budget=whole(EXACT.add(plan.budget, by)))
            admission = admission._replace(plan=plan)
            yield Emit(events.extended(admission, by))
            return admission
        if not last:
            yield from _drop_the_dead(plan)
    raise _insufficient(asked, extends=True)


def _look_again(admission: Admission) -> Flow[Admission]:
    """Short because of what others hold: some of them may be dead, some may have ended since the mark. Look once more.

    If that cannot be done, the first answer stands.
    """
    try:
        yield from _drop_the_dead(admission.plan)
        return (yield from _read(admission))
    except (BalanceUnavailable, LedgerError):
        return admission


def _drop_the_dead(plan: Plan) -> Flow[None]:
    for hold in (yield Sweep(plan.account)):
        yield Emit(events.abandoned(hold, plan))


def _read(admission: Admission, *, marked: bool = True, shared: bool = False) -> Flow[Admission]:
    if shared and admission.plan.max_age:
        reading = yield from _read_or_borrow(admission.plan)
    else:
        reading = yield Read(marked)
    mark = reading.mark
    held = mark.admitted - mark.released if mark else 0
    return _decided(admission, reading.balance, held, mark)


def _read_or_borrow(plan: Plan) -> Flow[Reading]:
    """Accept a reading that another process published lately; one process at a time reads anew.

    An old reading is as safe as a new one against other guarded runs, for its mark is as old: whatever they hold or have
    released since is counted. It may be behind on what happened outside of creditguard.
    """
    for _ in range(int(_CLAIM / _POLL)):
        known: Reading | bool = yield Recent(plan.account, plan.max_age, _CLAIM)
        if isinstance(known, Reading):
            return known
        if known:
            break
        yield Sleep(_POLL)
    reading: Reading = yield Read(marked=True)
    yield Publish(plan.account, reading)
    return reading


def _reserve(admission: Admission) -> Flow[tuple[Admission, bool]]:
    plan, balance = admission.plan, admission.balance
    assert balance is not None  # noqa: S101 - only asked once a balance has been read
    waits = max(3 * _interval(plan), _PLACE) if plan.wait and plan.on_short == "abort" else 0.0
    hold = plan.hold(to_micro(balance.amount, up=False), waits)
    grant: Grant = yield Reserve(hold, spendable(plan, balance), admission.mark)
    return _decided(admission, balance, grant.held_by_others, admission.mark), grant.admitted


def _decided(admission: Admission, balance: Balance, held: int, mark: Mark | None) -> Admission:
    verdict = decide(admission.plan, balance, held)
    return admission._replace(
        balance=balance,
        mark=mark,
        held_by_others=from_micro(held),
        headroom=verdict.headroom,
        shortfall=verdict.shortfall,
    )


def _verdict(admission: Admission, *, held: bool, cite: bool = False) -> Flow[Admission]:
    """Announce the decision, unless it has been announced: a refusal, or a start without a balance. A refusal cites past runs."""
    plan = admission.plan
    if admission.refusal or admission.balance is None:
        return admission
    if cite or (admission.shortfall and plan.on_short == "abort"):
        admission = yield from _with_past_runs(admission)
    if not admission.shortfall:
        yield Emit(events.admitted(admission, held=held))
        return admission
    if plan.on_short == "warn":
        yield Emit(events.short(admission))
        return admission
    yield Emit(events.refused(admission))
    return admission._replace(refusal=_insufficient(admission))


def _insufficient(admission: Admission, *, extends: bool = False) -> InsufficientCredits:
    plan, balance = admission.plan, admission.balance
    assert balance is not None  # noqa: S101 - else nobody could say that it falls short
    return InsufficientCredits(
        plan.budget,
        admission.headroom or ZERO,
        admission.shortfall or ZERO,
        plan.unit,
        plan.job,
        plan.account,
        balance.amount,
        None if extends else admission.held_by_others,
        plan.keep,
        plan.run_id,
        balance.request_id,
        admission.usually,
        admission.held_by_others if extends else None,
        None if extends else admission.others,
    )


def _with_past_runs(admission: Admission) -> Flow[Admission]:
    if admission.ledger_failed:
        return admission
    try:
        return admission._replace(usually=(yield Usual(admission.plan.account, admission.plan.job)))
    except LedgerError:
        return admission  # the decision stands without it


def _without_balance(admission: Admission, error: BalanceUnavailable) -> Flow[Admission]:
    """Apply `on_unreadable`: fail closed or open."""
    choice = admission.plan.on_unreadable
    yield Emit(events.unreadable(admission, error, choice, "before"))
    return admission._replace(refusal=error) if choice == "abort" else admission


def _without_ledger(admission: Admission, error: LedgerError) -> Flow[Admission]:
    """Pass over a ledger that nobody asked for; else apply `on_unreadable`. Whoever goes on decides by the balance alone."""
    plan = admission.plan
    choice: events.Policy = "passed_over" if plan.ledger_optional else plan.on_unreadable
    yield Emit(events.ledger_unavailable(admission, error, choice, "before"))
    if choice == "abort":
        return admission._replace(refusal=error)
    admission = Admission(plan, admission.started, ledger_failed=True)
    try:
        return (yield from _read(admission, marked=False))
    except BalanceUnavailable as unreadable:
        return (yield from _without_balance(admission, unreadable))


def _hold_regardless(admission: Admission) -> Flow[None]:
    """Make a run visible that starts although it is short or unread. It starts in any case."""
    try:
        yield Reserve(admission.plan.hold(), None, None)
    except LedgerError as error:
        yield Emit(events.ledger_unavailable(admission, error, "warn", "before"))


def _give_back(asked: list[Plan]) -> Flow[None]:
    if asked:
        with suppress(LedgerError):  # it is tried again, and what is under way says more
            yield Release(asked[0].run_id)


def leave(admission: Admission, ending: Ending, *, quickly: bool = False) -> Flow[Report]:
    """Close the run: read the balance again (not if `quickly`), report, release the hold. Raises nothing of our own."""
    found = Exit(trend_until_exit(admission, ending))
    if not quickly:
        with suppress(CutShort):  # the report says what is known
            yield from _exit_readings(admission, ending, found)
    report = make_report(admission, ending, found)
    if drifted(admission.plan, report):
        yield Emit(events.drift(admission, report))
    # An account that was seen behind what was recorded is remembered; until a settled report agrees with its record.
    was = bool(found.mark and found.mark.lagging)
    lagging = lags(admission.plan, report, was=was, rose=found.trend is not None and found.trend.rose)
    if lagging != was:
        yield Emit(events.lagging(admission, report.balance_delta, report.credits_recorded, lagging=lagging))
    yield Emit(events.finished(report))
    yield Deliver(report)
    try:
        yield Settle(report)
        if lagging != was:
            yield SetLagging(admission.plan.account, lagging)
    except LedgerError as error:
        if not admission.ledger_failed:
            yield Emit(events.ledger_unavailable(admission, error, "none", "after"))
    return report


def _exit_readings(admission: Admission, ending: Ending, found: Exit) -> Flow[None]:
    if admission.plan.settle_stable:
        yield from _until_stable(admission, ending, found)
    else:
        yield from _read_once(admission, ending, found)
    if admission.mark is None:
        return
    try:
        # After the balance: whoever starts from now on is not in it.
        found.mark = yield TakeMark(admission.plan.account)
    except LedgerError as error:
        yield Emit(events.ledger_unavailable(admission, error, "none", "after"))


def _read_once(admission: Admission, ending: Ending, found: Exit) -> Flow[None]:
    if admission.plan.settle:
        yield Sleep(admission.plan.settle)
    try:
        reading: Reading = yield Read(marked=False)
    except BalanceUnavailable as error:
        yield Emit(events.unreadable(admission, error, "none", "after"))
    else:
        found.saw(reading.balance, ending.ended)
        found.settled = settled_by_time(admission, ending, found)


def _until_stable(admission: Admission, ending: Ending, found: Exit) -> Flow[None]:
    """Read until the balance has come to rest, or the time is up. A reading that fails in between is passed over."""
    plan = admission.plan
    interval = max(plan.min_interval, _SHORTEST_INTERVAL)
    started: float = yield Now()
    slept = 0.0
    while True:
        failure: BalanceUnavailable | None = None
        try:
            balance: Balance = (yield Read(marked=False)).balance
        except BalanceUnavailable as error:
            failure = error
        # What was slept has passed, whatever the clock says: one that is frozen must not keep us here for ever.
        passed = max((yield Now()) - started, slept)
        if not failure:
            found.saw(balance, started + passed)
            found.settled = settled_by_readings(admission, ending, found)
            if agrees_with_record(admission, ending, found):
                found.settled = found.settled or (yield from _alone(admission))
        # The last one may come half an interval late: four intervals of 15 s in 60 s are five readings.
        if found.settled or passed + interval / 2 > plan.settle:
            break
        yield Sleep(interval)
        slept += interval
    if failure and not found.after:
        yield Emit(events.unreadable(admission, failure, "none", "after"))


def _alone(admission: Admission) -> Flow[bool]:
    """Whether no other guarded run has been on the account."""
    if admission.mark is None:
        return False
    try:
        mark: Mark = yield TakeMark(admission.plan.account)
    except LedgerError:
        return False  # said when the mark of the report cannot be taken either
    return overlapping(admission.mark, mark) == 0
