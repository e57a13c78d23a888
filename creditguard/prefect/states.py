"""What a refusal becomes in Prefect: whether it is retried, and the state that a run ends in."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from creditguard.errors import AuthenticationError, BudgetExceeded, ConfigurationError, InsufficientCredits

Ending: TypeAlias = Literal["fail", "cancel", "skip"]

_FINAL = (InsufficientCredits, AuthenticationError, BudgetExceeded, ConfigurationError)


def retry_unless_short(task: Any, task_run: Any, state: Any) -> bool:  # noqa: ARG001 - Prefect's signature
    """For `@task(retries=..., retry_condition_fn=retry_unless_short)`: retry all but what trying again at once cannot mend.

    That is InsufficientCredits, a rejected key (AuthenticationError), a setting that cannot be used (ConfigurationError), and a job
    that was stopped for what it spent (BudgetExceeded), which would spend even more. An account or a ledger that could not be
    reached may well answer the next time.
    """
    error = getattr(state.data, "result", state.data)  # the exception, or Prefect's record of it
    return not isinstance(error, _FINAL)


def refusal_state(error: InsufficientCredits, ending: Ending) -> Any:
    """The state for a task or a flow to return, so that it ends the way you choose when it was refused:

        except InsufficientCredits as short:
            return refusal_state(short, "skip")

    "cancel" is Cancelled, "skip" is Completed under the name Skipped, and "fail" raises the error again: that is how a run
    becomes Failed.
    """
    from prefect.states import Cancelled, Completed

    if ending == "fail":
        raise error
    if ending == "cancel":
        return Cancelled(message=str(error))
    if ending == "skip":
        return Completed(name="Skipped", message=str(error))
    raise ValueError(f"a refusal ends in 'fail', 'cancel' or 'skip', not {ending!r}")
