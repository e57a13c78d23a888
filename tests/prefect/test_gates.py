"""Being short: what is retried, and the states that gates, tasks and flows end in."""

from __future__ import annotations

import asyncio
import re

import pytest
from prefect import flow, task
from prefect.states import State

from creditguard import InsufficientCredits
from creditguard.errors import AuthenticationError, ConfigurationError
from creditguard.prefect import acredit_gate, credit_gate, credit_gate_task, guard, refusal_state, retry_unless_short


@pytest.fixture
def calls() -> list[str]:
    return []


def guarded_task(calls: list[str], **options: object):
    @task(retries=2, **options)
    def enrich(budget: int) -> str:
        calls.append("called")
        with guard("retried", budget=budget):
            if len(calls) < 3:
                raise RuntimeError("try again")
            return "done"

    return enrich


def states_of(the_task, budget: int, **options: object) -> State:
    @flow(**options)
    def main() -> State:
        return the_task(budget, return_state=True)

    return main(return_state=True)


def test_short_is_not_retried(api, gateway, calls):
    state = states_of(guarded_task(calls, retry_condition_fn=retry_unless_short), 500)
    assert state.is_failed()
    assert calls == ["called"]
    assert gateway.balance_reads == 1
    (artifact,) = api.artifacts(state.state_details.flow_run_id)
    assert artifact["table"]["outcome"] == "refused"
    assert artifact["sentence"] == REFUSED.replace("gated", "retried")
    assert artifact["figures"] == {
        "needs": "500",
        "free": "120",
        "short by": "380",
        "on the account": "120",
        "held by others": "0",
    }


def test_short_is_retried_where_nobody_said_otherwise(gateway, calls):
    assert states_of(guarded_task(calls), 500).is_failed()
    assert len(calls) == 3


def test_other_errors_are_retried_each_time_as_a_run_of_its_own(api, gateway, calls):
    state = states_of(guarded_task(calls, retry_condition_fn=retry_unless_short), 5)
    assert state.is_completed()
    assert len(calls) == 3
    reports = [each["table"] for each in api.artifacts(state.state_details.flow_run_id)]
    assert [each["outcome"] for each in reports] == ["failed", "failed", "succeeded"]
    assert [each["labels.run_count"] for each in reports] == [1, 2, 3]
    assert len({each["run_id"] for each in reports}) == 3


def test_a_balance_that_cannot_be_read_is_retried(gateway, calls):
    gateway.fault(status=404, times=1)

    @task(retries=1, retry_condition_fn=retry_unless_short)
    @guard("unreadable", budget=5)
    def enrich() -> str:
        calls.append("called")
        return "done"

    assert flow(enrich)() == "done"
    assert calls == ["called"]


def test_an_async_task_is_not_retried_either(gateway, calls):
    @task(retries=2, retry_condition_fn=retry_unless_short)
    @guard("async-short", budget=500)
    async def enrich() -> None: ...

    @flow
    async def main() -> State:
        return await enrich(return_state=True)

    assert asyncio.run(main(return_state=True)).is_failed()
    assert gateway.balance_reads == 1


ENDINGS = [("fail", "FAILED", "Failed"), ("cancel", "CANCELLED", "Cancelled"), ("skip", "COMPLETED", "Skipped")]


@pytest.mark.parametrize(("on_short", "kind", "name"), ENDINGS)
@pytest.mark.parametrize("gate", ["sync", "async"])
def test_a_flow_ends_as_its_gate_says(api, gateway, calls, on_short, kind, name, gate):
    if gate == "sync":

        @flow
        def main() -> object:
            if refusal := credit_gate("gated", budget=500, on_short=on_short):
                return refusal
            calls.append("went on")
            return None

        state = main(return_state=True)
    else:

        @flow
        async def main() -> object:
            if refusal := await acredit_gate("gated", budget=500, on_short=on_short):
                return refusal
            calls.append("went on")
            return None

        state = asyncio.run(main(return_state=True))

    assert calls == []
    assert (state.type.value, state.name) == (kind, name)
    stored = api.flow_run(state.state_details.flow_run_id)["state"]
    assert (stored["type"], stored["name"]) == (kind, name)
    assert "needs 500 credits, 120 are free" in stored["message"]


@pytest.mark.parametrize(("on_short", "kind", "name"), ENDINGS)
def test_a_gate_as_a_task_ends_as_it_was_told(api, gateway, calls, on_short, kind, name):
    """Tasks that wait for a failed or cancelled gate do not run. A skipped one counts as completed."""

    @task
    def enrich() -> None:
        calls.append("enriched")

    states = []

    @flow
    def main() -> None:
        gate = credit_gate_task.submit("gated", budget=500, on_short=on_short)
        after = enrich(wait_for=[gate], return_state=True)
        states.extend([gate.state, after.name])

    main()
    gate, after = states
    assert (gate.type.value, gate.name) == (kind, name)
    assert (after, calls) == (("Completed", ["enriched"]) if on_short == "skip" else ("NotReady", []))

    def stored() -> dict[str, object] | None:  # task runs reach the server as events, after a while
        answer = api.post("/task_runs/filter", {"task_runs": {"id": {"any_": [str(gate.state_details.task_run_id)]}}})
        return answer[0] if answer and answer[0]["state"] and answer[0]["state_name"] == name else None

    run = api.eventually(stored)
    assert (run["name"], run["state"]["type"]) == ("credit-gate-gated", kind)
    assert "120 are free" in run["state"]["message"]


@pytest.mark.parametrize("gate", [credit_gate, credit_gate_task])
def test_a_gate_that_opens_takes_no_hold(api, gateway, ledger, gate):
    @flow
    def main() -> object:
        opened = gate("gated", budget=100)
        assert list(ledger.holds()) == []
        return opened

    state = main(return_state=True)
    assert (state.name, state.result()) == ("Completed", None)
    (admitted,) = api.logs(state.state_details.flow_run_id)
    assert admitted["event"] == "creditguard.admitted"
    assert admitted["fields"]["labels"].get("task") == (None if gate is credit_gate else "credit-gate")


REFUSED = "gated: refused, needs 500 credits, 120 are free (120 on the account): top up 380, or declare less"
ANSWERS = [
    (100, "fail", "gated: may start, needs 100 credits, 120 are free (120 on the account)"),
    (500, "fail", REFUSED),
    (500, "cancel", REFUSED),
    (500, "skip", REFUSED),
    (500, "warn", "gated: short, but it starts: needs 500 credits, 120 are free (120 on the account)"),
]
LEVELS = {"fail": 40, "cancel": 30, "skip": 20, "warn": 30}


@pytest.mark.parametrize(("budget", "on_short", "sentence"), ANSWERS)
@pytest.mark.parametrize("gate", ["sync", "async"])
def test_a_gate_leaves_its_answer(api, gateway, budget, on_short, sentence, gate):
    """Sentence and figures first; and what was chosen is no error."""
    if gate == "sync":
        state = flow(lambda: credit_gate("gated", budget=budget, on_short=on_short), name="ask")(return_state=True)
    else:

        @flow
        async def ask() -> object:
            return await acredit_gate("gated", budget=budget, on_short=on_short)

        state = asyncio.run(ask(return_state=True))
    run_id = state.state_details.flow_run_id
    (answer,) = api.artifacts(run_id, "credit-gate-gated")
    assert (answer["sentence"], answer["description"]) == (sentence, sentence)
    short = str(max(budget - 120, 0))
    figures = {"needs": str(budget), "free": "120", "short by": short, "on the account": "120", "held by others": "0"}
    assert answer["figures"] == figures
    assert answer["table"]["budget"] == budget
    (record,) = api.logs(run_id)
    assert record["level"] == (20 if budget == 100 else LEVELS[on_short])


def test_a_gate_that_cannot_read_leaves_that_as_its_answer(api, gateway):
    gateway.fault(status=401, times=1)
    state = flow(lambda: credit_gate("gated", budget=1, on_short="skip"), name="unread")(return_state=True)
    (answer,) = api.artifacts(state.state_details.flow_run_id, "credit-gate-gated")
    assert re.match("gated: refused, .* refused the key: .*401", answer["sentence"])
    assert answer["figures"]["free"] == "?"


@pytest.mark.parametrize(
    ("fault", "budget", "error"),
    [(401, 5, AuthenticationError), (403, 5, AuthenticationError), (None, None, ConfigurationError)],
)
def test_what_trying_again_cannot_mend_is_not_retried(api, gateway, calls, fault, budget, error):
    if fault:
        gateway.fault(status=fault, times=9)

    @task(retries=2, retry_condition_fn=retry_unless_short)
    def enrich() -> None:
        calls.append("called")
        with guard("hopeless", budget=budget):
            calls.append("started")

    with pytest.raises(error):
        flow(enrich)()
    assert calls == ["called"]


def test_a_gate_counts_what_others_hold(gateway):
    @flow
    def main() -> list[bool]:
        with guard("other", budget=100):
            refusals = [credit_gate("gated", budget=21, on_short=on_short) for on_short in ("skip", "warn")]
        return [refusal is None for refusal in refusals]

    assert main() == [False, True]


def test_a_gate_is_never_answered_from_the_cache(gateway):
    gate = credit_gate_task.with_options(persist_result=True)

    @flow
    def main() -> list[str]:
        first = gate("gated", budget=100, on_short="skip", return_state=True)
        gateway.drain(50)
        return [first.name, gate("gated", budget=100, on_short="skip", return_state=True).name]

    assert main() == ["Completed", "Skipped"]


def test_a_gate_with_retries_retries_readings_only(gateway):
    gate = credit_gate_task.with_options(retries=2)

    @flow
    def main() -> None:
        gateway.fault(status=404, times=1)
        gate("gated", budget=100)
        reads = gateway.balance_reads
        assert gate("gated", budget=500, return_state=True).is_failed()
        assert gateway.balance_reads == reads + 1

    main()


def test_a_gate_takes_no_other_credentials(gateway):
    from prefect.blocks.system import Secret

    with pytest.raises(ConfigurationError, match="credentials must be an ApiMallCredentials block, not Secret"):
        credit_gate("gated", budget=1, credentials=Secret(value=gateway.key))
    assert gateway.balance_reads == 0


def test_a_gate_refuses_what_it_does_not_know(gateway):
    with pytest.raises(ConfigurationError, match="'fail', 'cancel', 'skip' or 'warn'"):
        flow(lambda: credit_gate("gated", budget=1, on_short="abort"), name="unknown")()
    assert gateway.balance_reads == 0


@pytest.mark.parametrize(("ending", "kind", "name"), ENDINGS)
def test_a_guarded_flow_ends_as_it_was_told(api, gateway, calls, ending, kind, name):
    @flow(retries=1)
    def main() -> object:
        calls.append("called")
        try:
            with guard("whole-flow", budget=500):
                calls.append("went on")
        except InsufficientCredits as short:
            return refusal_state(short, ending)

    state = main(return_state=True)
    assert (state.type.value, state.name) == (kind, name)
    stored = api.flow_run(state.state_details.flow_run_id)["state"]
    assert (stored["type"], stored["name"]) == (kind, name)
    assert "120 are free" in stored["message"]
    assert len(calls) == (2 if ending == "fail" else 1)  # a flow has no retry condition: only Failed is retried


def test_a_refusal_has_three_endings():
    with pytest.raises(ValueError, match="'fail', 'cancel' or 'skip'"):
        refusal_state(InsufficientCredits(1, 0, 1), "abort")
