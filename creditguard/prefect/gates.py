"""A gate for flows: the pre-flight question alone, without a hold."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeAlias

from prefect import task
from prefect.cache_policies import NO_CACHE

from creditguard.errors import ConfigurationError, InsufficientCredits
from creditguard.guarding import guard as _guard
from creditguard.prefect.artifacts import answer_page, await_, in_a_thread, wait
from creditguard.prefect.blocks import ApiMallCredentials
from creditguard.prefect.guards import guard
from creditguard.prefect.host import here
from creditguard.prefect.states import refusal_state, retry_unless_short
from creditguard.rules.amounts import Amount
from creditguard.rules.events import Level
from creditguard.rules.values import Admission
from creditguard.settings.options import hide_password

OnShortGate: TypeAlias = Literal["fail", "cancel", "skip", "warn"]


def credit_gate(
    name: str,
    budget: Amount | None = None,
    on_short: OnShortGate = "fail",
    credentials: ApiMallCredentials | None = None,
    **options: Any,
) -> Any:
    """Ask whether the account can carry `budget` now, holds of other runs included. None when it can; when it is short:

    "fail"    raises InsufficientCredits
    "cancel"  a Cancelled state, for the flow or the task to return
    "skip"    a Completed state by the name Skipped, likewise
    "warn"    None all the same, after the event creditguard.short

        if refusal := credit_gate("nightly-enrich", budget=500, on_short="skip"):
            return refusal

    `name` is the job's, for events and for its budget in the settings file; `options` are those of `guard` (keep, account,
    labels, ...). A balance that cannot be read is raised, unless on_unreadable (which follows on_short) is "warn". Whatever the
    answer is, it is an artifact of the run, too. A refusal that you chose to be skipped is no error in the log.

    The gate holds nothing. To make sure of the credits, put `guard` around what spends them.
    """
    hide_password(options)
    admission = _question(name, budget, on_short, credentials, options).ask()
    if here():
        wait(in_a_thread(name, partial(answer_page(admission).create, _sync=True)))
    return _answer(admission, on_short)


async def acredit_gate(
    name: str,
    budget: Amount | None = None,
    on_short: OnShortGate = "fail",
    credentials: ApiMallCredentials | None = None,
    **options: Any,
) -> Any:
    """As `credit_gate`, without blocking the event loop."""
    hide_password(options)
    admission = await _question(name, budget, on_short, credentials, options).aask()
    if here():
        await await_(in_a_thread(name, partial(answer_page(admission).create, _sync=True)))
    return _answer(admission, on_short)


# Never from the cache: the answer of a minute ago is no answer. Retries, where there are any, are for what retrying can mend.
credit_gate_task = task(
    credit_gate,
    name="credit-gate",
    task_run_name="credit-gate-{name}",
    cache_policy=NO_CACHE,
    retry_condition_fn=retry_unless_short,
)
"""`credit_gate` as a task, for other tasks to wait for: those that do so do not run when it fails or is cancelled."""


def _question(
    name: str, budget: Amount | None, on_short: str, credentials: Any, options: dict[str, Any]
) -> _guard.guard:
    if on_short not in {"fail", "cancel", "skip", "warn"}:
        message = f"on_short must be 'fail', 'cancel', 'skip' or 'warn', not {on_short!r}"
        raise ConfigurationError(message, "on_short")
    if credentials is not None and not isinstance(credentials, ApiMallCredentials):
        message = f"credentials must be an ApiMallCredentials block, not {type(credentials).__name__}"
        raise ConfigurationError(message, "credentials")
    host = here()
    if host and not options.get("sink") and on_short in _LEVELS:
        options["sink"] = host.run_log(_LEVELS[on_short])
    make = guard if credentials is None else credentials.guard
    return make(name, budget=budget, on_short="warn" if on_short == "warn" else "abort", **options)


_LEVELS: dict[str, Level] = {"skip": "info", "cancel": "warning"}
"""How a refusal is logged that was foreseen."""


def _answer(admission: Admission, on_short: OnShortGate) -> Any:
    refusal = admission.refusal
    if refusal is None:
        return None
    if isinstance(refusal, InsufficientCredits) and on_short != "warn":
        return refusal_state(refusal, on_short)
    raise refusal
