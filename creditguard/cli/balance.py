"""`creditguard balance`: what the account has left."""

from __future__ import annotations

import argparse
import json

from creditguard import settings as _settings
from creditguard.cli import exits
from creditguard.cli.output import answer
from creditguard.guarding.wiring import source_for
from creditguard.rules.amounts import to_json


def run(options: argparse.Namespace) -> int:
    """Print the balance: the number alone, for scripts, or all that is known of it."""
    settings = _settings.current()
    source = source_for(settings)
    balance = source.read(settings.timeout)
    if options.json:
        known = {
            "balance": to_json(balance.amount),
            "unit": balance.unit,
            "account": settings.account or source.account,
            "source": source.name,
            "read_at": balance.read_at.isoformat(),
            "request_id": balance.request_id,
        }
        answer(json.dumps(known))
    else:
        answer(f"{balance.amount:f}")
    return exits.OK
