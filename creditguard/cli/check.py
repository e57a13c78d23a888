"""`creditguard check`: the pre-flight question, answered by the exit code. Takes no hold."""

from __future__ import annotations

import argparse
import json

from creditguard.cli import exits
from creditguard.cli.output import answer, say
from creditguard.cli.preflight import Events, guard_for
from creditguard.rules.amounts import ZERO, to_json
from creditguard.rules.text import printable
from creditguard.rules.values import Admission


def run(options: argparse.Namespace) -> int:
    """Print the answer and return its code."""
    events = Events(options)
    admission = guard_for(options, "check", events).ask()
    if options.json:
        answer(json.dumps(_as_json(admission)))
    elif not admission.refusal:
        answer(printable(_sentence(admission)))
    if admission.refusal is None:
        return exits.OK
    if not events.told:
        say(str(admission.refusal))
    return exits.code_for(admission.refusal, options.short_code)


def _as_json(admission: Admission) -> dict[str, object]:
    plan, balance = admission.plan, admission.balance
    return {
        "enough": None if balance is None else not admission.shortfall,
        "budget": to_json(plan.budget),
        "balance": to_json(balance.amount) if balance else None,
        "held_by_others": to_json(admission.held_by_others),
        "keep": to_json(plan.keep),
        "headroom": to_json(admission.headroom),
        "shortfall": to_json(admission.shortfall),
        "unit": plan.unit,
        "account": plan.account,
        "source": plan.source,
        "usually": admission.usually,
        "request_id": balance.request_id if balance else None,
        "error": str(admission.refusal) if admission.refusal else None,
    }


def _sentence(admission: Admission) -> str:
    plan = admission.plan
    if admission.headroom is None:
        return f"unknown: needs {plan.budget:f} {plan.unit}, the balance could not be read"
    word = "short" if admission.shortfall else "enough"
    usually = f" ({admission.usually})" if admission.usually else ""
    return f"{word}: needs {plan.budget:f} {plan.unit}, has {max(admission.headroom, ZERO):f}{usually}"
