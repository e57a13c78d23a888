"""Control: the commands that move the sandbox, the same from Python and over HTTP.

    {"top_up": 50, "lag": 1, "fault": {"status": 500, "times": 2}}

Every command of a request is checked before the first is carried out, so a request that is refused
changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from creditguard.sandbox.account import MAX_LAG, Account
from creditguard.sandbox.faults import FaultScript, parse
from creditguard.sandbox.fields import LIMIT, BadField, flag, mapping, seconds, whole

Step = Callable[[], None]

LEVERS: dict[str, Callable[[str, object], object]] = {
    "lag": partial(whole, high=MAX_LAG),
    "submit_cost": whole,
    "refund_delay": seconds,
    "task_seconds": seconds,
    "allow_negative": flag,
    "fail_next_tasks": whole,
}
"""The account's attributes that may be set at any time, and what each may be."""


def apply(account: Account, faults: FaultScript, commands: Mapping[str, object]) -> None:
    """Carry out the commands in their order. Raises BadField."""
    steps: list[Step] = []
    for name, value in commands.items():
        steps += _plan(account, faults, name, value)
    for step in steps:
        step()


def _plan(account: Account, faults: FaultScript, name: str, value: object) -> list[Step]:
    if name in LEVERS:
        return [partial(setattr, account, name, LEVERS[name](name, value))]
    match name:
        case "top_up":
            return [partial(account.top_up, whole(name, value))]
        case "drain":
            return [partial(account.drain, whole(name, value))]
        case "set_credits":
            return [partial(account.set_credits, whole(name, value, -LIMIT))]
        case "schedule":
            return [_schedule(account, item) for item in _items(value)]
        case "fault":
            return [partial(faults.add, parse(item)) for item in _items(value)]
        case "clear_faults":
            return [faults.clear] if flag(name, value) else []
    raise BadField(name, "is no command")


def _items(value: object) -> list[object]:
    """One thing, or several in a list."""
    return value if isinstance(value, list) else [value]


def _schedule(account: Account, value: object) -> Step:
    spec = mapping("schedule", value)
    for name in spec.keys() - {"top_up", "drain", "at_reading", "after"}:
        raise BadField(f"schedule.{name}", "is no part of a schedule")
    if ("top_up" in spec) == ("drain" in spec):
        raise BadField("schedule", "needs either top_up or drain")
    if ("at_reading" in spec) == ("after" in spec):
        raise BadField("schedule", "needs either at_reading or after")
    action: Literal["top_up", "drain"] = "top_up" if "top_up" in spec else "drain"
    amount = whole(f"schedule.{action}", spec[action])
    if "after" in spec:
        after = seconds("schedule.after", spec["after"])
        return partial(account.schedule, action, amount, after=after)
    reading = whole("schedule.at_reading", spec["at_reading"], 1)
    return partial(account.schedule, action, amount, at_reading=reading)
