"""What a run has consumed, and how sure that is.

before − after is what the *account* lost. It is what the run consumed only if no other guarded run was on the
account meanwhile; else, or when the ledger cannot tell, it is an upper bound. A balance that rose says nothing about
consumption: it is never clamped to 0. If readings during the run saw it rise, then what fell between the rises was debited
at least, by whomever; refunds are not taken off that.

What this rests on, and no reading can show: that nobody spends from the account outside of creditguard (what the job records
itself tells, as drift), and that no top-up or reset hides between two readings, having been spent again before the second.
A refund that hides so does no harm: the difference is then net of it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from creditguard.rules.amounts import EXACT, ZERO, whole
from creditguard.rules.values import Basis, Mark


def overlapping(before: Mark | None, after: Mark | None) -> int | None:
    """How many other runs were live at some time between two marks of the same account, the run itself not counted.

    Those that were live at the first mark, and those that started since, less the run itself.
    """
    if before is None or after is None:
        return None
    return max((before.started - before.ended) + (after.started - before.started) - 1, 0)


class Usage(NamedTuple):
    """What a run consumed, as far as its balances, its own record and the ledger tell."""

    delta: Decimal | None
    consumed: Decimal | None
    drift: Decimal | None
    basis: Basis
    over_budget: bool | None
    at_least: Decimal | None = None


def usage(
    budget: Decimal,
    before: Decimal | None,
    after: Decimal | None,
    recorded: Decimal | None,
    overlaps: int | None,
    *,
    fallen: Decimal = ZERO,
    rose: bool = False,
) -> Usage:
    """Work out consumption and its basis. `over_budget` is None when the figures cannot tell.

    `fallen` and `rose` are what the readings in between saw: the falls added up, and whether there was a rise.
    """
    delta = None if before is None or after is None else whole(EXACT.subtract(before, after))
    if recorded is not None:
        drift = None if delta is None else whole(EXACT.subtract(delta, recorded))
        return Usage(delta, recorded, drift, "recorded", recorded > budget)
    if delta is None or delta < 0 or rose:
        at_least = whole(fallen) if fallen and overlaps == 0 else None
        return Usage(delta, None, None, "unknown", None, at_least)
    if overlaps != 0:
        # Others ran too, or the ledger cannot tell. An upper bound within the budget proves that the run was; one beyond it proves nothing.
        return Usage(delta, delta, None, "shared_account_delta", False if delta <= budget else None)
    return Usage(delta, delta, None, "account_delta", delta > budget)
