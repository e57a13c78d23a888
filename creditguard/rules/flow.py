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
from dataclasses import replace
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
    Flow,
    deliver,
    emit,
    extend_hold,
    now,
    publish,
    read,
    recent,
    release,
    reserve,
    set_lagging,
    settle,
    sleep,
    sweep,
    take_mark,
    usual,
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
from creditguard.rules.values import Admission, Balance, Mark, Plan, Reading

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
    admission = Admission(plan, started=(yield from now()))
    asked: list[Plan] = []
    try:
        admission = yield from _admit(admission, asked)
    except GeneratorExit:
        raise  # the flow was dropped: no effect can be performed any more
    except BaseException:
        yield from _give_back(asked)
        raise
    admission = replace(admission, started=(yield from now()))
    yield from deliver(admission)
    if isinstance(admission.refusal, InsufficientCredits):
        yield from _file(refused(admission, admission.started))
    elif admission.refusal:
        yield from _give_back(asked)
    return admission


def ask(plan: Plan) -> Flow[Admission]:
    """Answer the pre-flight question without taking a hold: `creditguard check`."""
    admission, _ = yield from _when_it_fits(Admission(plan, started=(yield from now())), _look)
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
    started, slept, granted = admission.started, 0.0, False
    while True:
        failure: BalanceUnavailable | LedgerError | None = None
        try:
            admission, granted = yield from attempt(admission)
        except (BalanceUnavailable, LedgerError) as error:
            failure = error
        if not admission.plan.wait:
            break
        # What was slept has passed, whatever the clock says.
        left = admission.plan.wait - max((yield from now()) - started, slept)
        pause = _pause(admission, failure, granted=granted, left=left)
        if pause is None:
            break
        if not slept:
            yield from emit(events.waiting(admission, failure))
        yield from sleep(pause)
        slept += pause
    if isinstance(failure, LedgerError):
        return (yield from _without_ledger(admission, failure)), False
    if failure:
        return (yield from _without_balance(admission, failure)), False
    return admission, granted


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
    micro = to_micro(by, up=True)
    for last in (False, True):
        reading = yield from read(marked=True)
        available = None if plan.on_short == "warn" else spendable(plan, reading.balance)
        grant = yield from extend_hold(plan.run_id, micro, available=available, mark=reading.mark)
        if grant.missing:
            raise LeaseLost("the run has no hold any more that could be extended", None, plan.run_id)
        held = grant.held_by_others or to_micro(unspent, up=True)
        verdict = decide(replace(plan, budget=by), reading.balance, held)
        if grant.admitted and (grant.held_by_others or available is None or not verdict.short):
            plan = replace(plan, budget=whole(EXACT.add(plan.budget, by)))
            admission = replace(admission, plan=plan)
            yield from emit(events.extended(admission, by))
            return admission
        if not last:
            for hold in (yield from sweep(plan.account)):
                yield from emit(events.abandoned(hold, plan))
    raise InsufficientCredits(
        by,
        verdict.headroom,
        verdict.shortfall,
        plan.unit,
        plan.job,
        plan.account,
        reading.balance.amount,
        from_micro(held),
        plan.keep,
        plan.run_id,
        reading.balance.request_id,
    )


def _look_again(admission: Admission) -> Flow[Admission]:
    """Short because of what others hold: some of them may be dead, some may have ended since the mark. Look once more.

    If that cannot be done, the first answer stands.
    """
    try:
        swept = yield from sweep(admission.plan.account)
        for hold in swept:
            yield from emit(events.abandoned(hold, admission.plan))
        return (yield from _read(admission))
    except (BalanceUnavailable, LedgerError):
        return admission


def _read(admission: Admission, *, marked: bool = True, shared: bool = False) -> Flow[Admission]:
    if shared and admission.plan.max_age:
        reading = yield from _read_or_borrow(admission.plan)
    else:
        reading = yield from read(marked=marked)
    mark = reading.mark
    held = mark.admitted - mark.released if mark else 0
    return _decided(admission, reading.balance, held, mark)


def _read_or_borrow(plan: Plan) -> Flow[Reading]:
    """Accept a reading that another process published lately; one process at a time reads anew.

    An old reading is as safe as a new one against other guarded runs, for its mark is as old: whatever they hold or have
    released since is counted. It may be behind on what happened outside of creditguard.
    """
    for _ in range(int(_CLAIM / _POLL)):
        known = yield from recent(plan.account, max_age=plan.max_age, claim=_CLAIM)
        if isinstance(known, Reading):
            return known
        if known:
            break
        yield from sleep(_POLL)
    reading = yield from read(marked=True)
    yield from publish(plan.account, reading)
    return reading


def _reserve(admission: Admission) -> Flow[tuple[Admission, bool]]:
    plan, balance = admission.plan, admission.balance
    assert balance is not None  # noqa: S101 - only asked once a balance has been read
    waits = max(3 * _interval(plan), _PLACE) if plan.wait and plan.on_short == "abort" else 0.0
    hold = replace(plan.hold, balance=to_micro(balance.amount, up=False), waits=waits)
    grant = yield from reserve(hold, available=spendable(plan, balance), mark=admission.mark)
    return _decided(admission, balance, grant.held_by_others, admission.mark), grant.admitted


def _decided(admission: Admission, balance: Balance, held: int, mark: Mark | None) -> Admission:
    verdict = decide(admission.plan, balance, held)
    return replace(
        admission,
        balance=balance,
        mark=mark,
        held_by_others=from_micro(held),
        headroom=verdict.headroom,
        shortfall=verdict.shortfall,
    )


def _verdict(admission: Admission, *, held: bool, cite: bool = False) -> Flow[Admission]:
    """Announce the decision, unless it has been announced: a refusal, or a start without a balance. A refusal cites past runs."""
    plan, balance = admission.plan, admission.balance
    if admission.refusal or balance is None:
        return admission
    if cite or (admission.shortfall and plan.on_short == "abort"):
        admission = yield from _with_past_runs(admission)
    if not admission.shortfall:
        yield from emit(events.admitted(admission, held=held))
        return admission
    if plan.on_short == "warn":
        yield from emit(events.short(admission))
        return admission
    yield from emit(events.refused(admission))
    refusal = InsufficientCredits(
        plan.budget,
        admission.headroom or ZERO,
        admission.shortfall,
        plan.unit,
        plan.job,
        plan.account,
        balance.amount,
        admission.held_by_others,
        plan.keep,
        plan.run_id,
        balance.request_id,
        admission.usually,
    )
    return replace(admission, refusal=refusal)


def _with_past_runs(admission: Admission) -> Flow[Admission]:
    if admission.ledger_failed:
        return admission
    try:
        return replace(admission, usually=(yield from usual(admission.plan.account, admission.plan.job)))
    except LedgerError:
        return admission  # the decision stands without it


def _without_balance(admission: Admission, error: BalanceUnavailable) -> Flow[Admission]:
    """Apply `on_unreadable`: fail closed or open."""
    choice = admission.plan.on_unreadable
    yield from emit(events.unreadable(admission, error, choice, "before"))
    return replace(admission, refusal=error) if choice == "abort" else admission


def _without_ledger(admission: Admission, error: LedgerError) -> Flow[Admission]:
    """Pass over a ledger that nobody asked for; else apply `on_unreadable`. Whoever goes on decides by the balance alone."""
    plan = admission.plan
    choice: events.Policy = "passed_over" if plan.ledger_optional else plan.on_unreadable
    yield from emit(events.ledger_unavailable(admission, error, choice, "before"))
    if choice == "abort":
        return replace(admission, refusal=error)
    admission = Admission(plan, admission.started, ledger_failed=True)
    try:
        return (yield from _read(admission, marked=False))
    except BalanceUnavailable as unreadable:
        return (yield from _without_balance(admission, unreadable))


def _hold_regardless(admission: Admission) -> Flow[None]:
    """Make a run visible that starts although it is short or unread. It starts in any case."""
    try:
        yield from reserve(admission.plan.hold, available=None, mark=None)
    except LedgerError as error:
        yield from emit(events.ledger_unavailable(admission, error, "warn", "before"))


def _give_back(asked: list[Plan]) -> Flow[None]:
    if asked:
        try:
            yield from release(asked[0].run_id)
        except LedgerError:
            pass  # it is tried again until the ledger has taken it, and what is under way says more


def _file(report: Report) -> Flow[None]:
    try:
        yield from settle(report)
    except LedgerError:
        pass  # likewise


def leave(admission: Admission, ending: Ending, *, quickly: bool = False) -> Flow[Report]:
    """Close the run: read the balance again (not if `quickly`), report, release the hold. Raises nothing of our own."""
    found = Exit(trend_until_exit(admission, ending))
    if not quickly:
        try:
            yield from _exit_readings(admission, ending, found)
        except CutShort:
            pass  # the report says what is known
    report = make_report(admission, ending, found)
    if drifted(admission.plan, report):
        yield from emit(events.drift(admission, report))
    # An account that was seen behind what was recorded is remembered; until a settled report agrees with its record.
    was = bool(found.mark and found.mark.lagging)
    lagging = lags(admission.plan, report, was=was, rose=found.trend is not None and found.trend.rose)
    if lagging != was:
        yield from emit(events.lagging(admission, report.balance_delta, report.credits_recorded, lagging=lagging))
    yield from emit(events.finished(report))
    yield from deliver(report)
    try:
        yield from settle(report)
        if lagging != was:
            yield from set_lagging(admission.plan.account, lagging=lagging)
    except LedgerError as error:
        if not admission.ledger_failed:
            yield from emit(events.ledger_unavailable(admission, error, "none", "after"))
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
        found.mark = yield from take_mark(admission.plan.account)
    except LedgerError as error:
        yield from emit(events.ledger_unavailable(admission, error, "none", "after"))


def _read_once(admission: Admission, ending: Ending, found: Exit) -> Flow[None]:
    if admission.plan.settle:
        yield from sleep(admission.plan.settle)
    try:
        reading = yield from read(marked=False)
    except BalanceUnavailable as error:
        yield from emit(events.unreadable(admission, error, "none", "after"))
    else:
        found.saw(reading.balance, ending.ended)
        found.settled = settled_by_time(admission, ending, found)


def _until_stable(admission: Admission, ending: Ending, found: Exit) -> Flow[None]:
    """Read until the balance has come to rest, or the time is up. A reading that fails in between is passed over."""
    plan = admission.plan
    interval = max(plan.min_interval, _SHORTEST_INTERVAL)
    started = yield from now()
    slept = 0.0
    while True:
        failure: BalanceUnavailable | None = None
        try:
            balance = (yield from read(marked=False)).balance
        except BalanceUnavailable as error:
            failure = error
        # What was slept has passed, whatever the clock says: one that is frozen must not keep us here for ever.
        passed = max((yield from now()) - started, slept)
        if not failure:
            found.saw(balance, started + passed)
            found.settled = settled_by_readings(admission, ending, found)
            if agrees_with_record(admission, ending, found):
                found.settled = found.settled or (yield from _alone(admission))
        # The last one may come half an interval late: four intervals of 15 s in 60 s are five readings.
        if found.settled or passed + interval / 2 > plan.settle:
            break
        yield from sleep(interval)
        slept += interval
    if failure and not found.after:
        yield from emit(events.unreadable(admission, failure, "none", "after"))


def _alone(admission: Admission) -> Flow[bool]:
    """Whether no other guarded run has been on the account."""
    if admission.mark is None:
        return False
    try:
        mark = yield from take_mark(admission.plan.account)
    except LedgerError:
        return False  # said when the mark of the report cannot be taken either
    return overlapping(admission.mark, mark) == 0
