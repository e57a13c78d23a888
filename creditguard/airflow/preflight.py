"""The pre-flight question as the gate, the sensor and the trigger ask it: no hold is taken."""

from __future__ import annotations

from typing import Any

from creditguard.errors import CreditGuardError, InsufficientCredits, RateLimited, SourceError
from creditguard.rules.amounts import to_json
from creditguard.rules.values import Admission


def passes_by_itself(refusal: CreditGuardError | None) -> bool:
    """Whether it makes sense to ask again later: short of credits, or a gateway that could not answer."""
    return isinstance(refusal, (InsufficientCredits, SourceError, RateLimited))


def summary(admission: Admission) -> dict[str, Any]:
    """The answer as plain JSON values, for an XCom."""
    return {
        "enough": admission.refusal is None and not admission.shortfall,
        "reason": str(admission.refusal) if admission.refusal else None,
        "budget": to_json(admission.plan.budget),
        "balance": to_json(admission.balance.amount) if admission.balance else None,
        "held_by_others": to_json(admission.held_by_others),
        "headroom": to_json(admission.headroom),
        "shortfall": to_json(admission.shortfall),
        "unit": admission.plan.unit,
    }
