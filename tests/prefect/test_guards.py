"""Guards in flows and tasks: labels, the run's log, the artifact and the event, all looked up on the server."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
import re
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from prefect import flow, get_run_logger, task
from prefect.assets import materialize
from prefect.cache_policies import INPUTS
from prefect.context import get_run_context
from prefect.states import State

import creditguard
from creditguard import InsufficientCredits, current_run
from creditguard.prefect import credit_gate_task, guard

_SCHEMA = jsonschema.Draft202012Validator(json.loads(files("creditguard").joinpath("events.schema.json").read_text()))


def flow_run_id(state: State) -> str:
    return str(state.state_details.flow_run_id)


@pytest.mark.parametrize("guard", [guard, creditguard.guard])
def test_a_guarded_flow_logs_reports_and_tells_prefect(api, gateway, guard):
    @flow(name="nightly")
    def nightly() -> None:
        with guard("nightly-enrich", budget=50, labels={"team": "catalogue"}) as run:
            gateway.drain(24)
            run.record(24)

    state = nightly(return_state=True)
    run_id = flow_run_id(state)
    assert state.is_completed()

    admitted, finished = api.logs(run_id, "creditguard.finished")
    assert (admitted["event"], admitted["level"]) == ("creditguard.admitted", 20)
    assert (finished["event"], finished["level"]) == ("creditguard.finished", 20)
    for record in (admitted, finished):
        level = "info" if record["level"] == 20 else "?"
        _SCHEMA.validate({"event": record["event"], "level": level, **record["fields"]})
    fields = finished["fields"]
    assert (fields["balance_before"], fields["balance_after"], fields["credits_recorded"]) == (120, 96, 24)
    labels = fields["labels"]
    assert labels == {
        "team": "catalogue",
        "flow": "nightly",
        "flow_run": api.flow_run(run_id)["name"],
        "flow_run_id": run_id,
        "run_count": 1,
    }

    assert admitted["sentence"] == "nightly-enrich: admitted, 50 of 120 credits held"
    (artifact,) = api.artifacts(run_id)
    assert (artifact["type"], artifact["key"]) == ("markdown", "credit-report-nightly-enrich")
    assert re.fullmatch(r"nightly-enrich: consumed 24 of 50 credits in \d+\.\d s, 96 left", artifact["sentence"])
    assert artifact["description"] == artifact["sentence"] == finished["sentence"]
    assert list(artifact["figures"]) == ["consumed", "budget", "before", "after", "took"]
    assert list(artifact["figures"].values())[:4] == ["24", "50", "120", "96"]
    assert artifact["table"]["credits_consumed"] == 24
    assert artifact["table"]["labels.team"] == "catalogue"
    assert r"| run\_id |" in artifact["data"]  # not as code, where Prefect's page shows the backslash, too

    (event,) = api.events(run_id, "creditguard.finished")
    assert event["payload"] == fields
    assert event["resource"] == {
        "prefect.resource.id": f"creditguard.run.{fields['run_id']}",
        "prefect.resource.name": "nightly-enrich",
    }
    related = {each["prefect.resource.role"]: each["prefect.resource.id"] for each in event["related"]}
    assert related["flow-run"] == f"prefect.flow-run.{run_id}"
    assert related["creditguard-account"] == f"creditguard.account.{fields['account']}"
    assert related["flow"].startswith("prefect.flow.")


def test_the_watch_logs_to_the_runs_log(api, gateway):
    @flow
    def plain() -> None:
        with creditguard.guard(budget=5, watch=0.1, thresholds=(0.5,), min_interval=0.1) as run:
            gateway.drain(4)
            run.record(4)

    state = plain(return_state=True)
    records = api.logs(flow_run_id(state), "creditguard.finished")
    assert [each["event"] for each in records] == [
        "creditguard.admitted",
        "creditguard.threshold",
        "creditguard.finished",
    ]
    assert records[-1]["fields"]["credits_recorded"] == 4


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_watched_run_has_a_bar(api, gateway, asynchronous):
    """Up to date while the job runs, and at its end."""

    def bar() -> dict[str, Any]:
        (found,) = api.artifacts(get_run_context().flow_run.id, "credit-progress-watched")
        return found

    def spend_half() -> None:
        gateway.drain(20)
        api.eventually(lambda: api.artifacts(get_run_context().flow_run.id, "credit-progress") and bar()["data"] == 50)

    watched = guard("watched", budget=40, watch=0.1, min_interval=0.1)
    if asynchronous:

        @flow
        async def main() -> None:
            async with watched:
                await asyncio.to_thread(spend_half)
                gateway.drain(10)

        state = asyncio.run(main(return_state=True))
    else:

        @flow
        def main() -> None:
            with watched:
                spend_half()
                gateway.drain(10)

        state = main(return_state=True)
    state.result()
    (bar_at_end,) = api.artifacts(flow_run_id(state), "credit-progress-watched")
    assert (bar_at_end["type"], bar_at_end["data"]) == ("progress", 75)
    assert bar_at_end["description"] == "watched: 30 of 40 credits spent (account_delta)"


def test_a_refused_run_has_no_bar(api, gateway):
    @flow
    def main() -> None:
        with pytest.raises(InsufficientCredits), guard("watched", budget=400, watch=0.1, min_interval=0.1):
            pass
        time.sleep(0.5)

    state = main(return_state=True)
    assert api.artifacts(flow_run_id(state), "credit-progress") == []


def test_a_job_without_a_name_has_that_of_its_task_or_flow(api, gateway):
    @task(name="the task")
    def inner() -> str:
        with creditguard.guard(budget=1) as run:
            return run.job

    @flow(name="the flow")
    def main() -> list[str]:
        with creditguard.guard(budget=1) as run:
            return [run.job, inner()]

    assert main() == ["the flow", "the task"]


@pytest.mark.parametrize("on_overrun", ["warn", "stop"])
def test_what_to_do_about_an_overrun_is_a_choice(api, gateway, on_overrun):
    @flow
    def runaway() -> str:
        with guard("runaway", budget=5, on_overrun=on_overrun, shrink=False) as run:
            run.record(9)
            run.check()
            return "went on"

    state = runaway(return_state=True)
    assert state.is_completed() == (on_overrun == "warn")
    names = [each["event"] for each in api.logs(flow_run_id(state), "creditguard.finished")]
    assert names == ["creditguard.admitted", "creditguard.overrun", "creditguard.finished"]
    (artifact,) = api.artifacts(flow_run_id(state))
    assert artifact["table"]["stopped"] is (on_overrun == "stop")
    assert artifact["table"]["over_budget"] is True


@pytest.mark.parametrize("guard", [guard, creditguard.guard])
def test_a_guarded_task_carries_the_labels_of_its_task_run(api, gateway, guard):
    @task(name="enrich")
    @guard(budget=lambda rows: 2 * len(rows))
    def enrich(rows: list[int]) -> int:
        gateway.drain(4)
        current_run().record(4)
        return len(rows)

    @flow(name="by-task")
    def by_task() -> int:
        return enrich([1, 2, 3])

    state = by_task(return_state=True)
    assert state.result() == 3
    run_id = flow_run_id(state)
    finished = api.logs(run_id, "creditguard.finished")[-1]
    labels = finished["fields"]["labels"]
    (task_run,) = api.eventually(lambda: api.task_runs(run_id))
    assert finished["task_run_id"] == task_run["id"]
    assert finished["fields"]["budget"] == 6
    assert labels["task"] == "enrich"
    assert (labels["task_run"], labels["task_run_id"]) == (task_run["name"], task_run["id"])
    assert (labels["flow"], labels["flow_run_id"], labels["run_count"]) == ("by-task", run_id, 1)
    (artifact,) = api.artifacts(run_id)
    assert artifact["task_run_id"] == task_run["id"]
    (event,) = api.events(run_id, "creditguard.finished")
    assert "task-run" in {each["prefect.resource.role"] for each in event["related"]}


def test_async_flows_and_tasks(api, gateway):
    @task
    @guard("async-task", budget=10)
    async def enrich(number: int) -> int:
        await asyncio.sleep(0)
        gateway.drain(3)
        current_run().record(3)
        return number

    @flow
    async def main() -> list[int]:
        async with guard("async-flow", budget=20) as run:
            one = await enrich(1)
            two = enrich.submit(2)
            run.record(6)
            return [one, two.result()]

    state = asyncio.run(main(return_state=True))
    assert asyncio.run(state.aresult()) == [1, 2]
    reports = {artifact["key"]: artifact["table"] for artifact in api.artifacts(flow_run_id(state))}
    assert len(api.artifacts(flow_run_id(state))) == 3
    assert reports["credit-report-async-flow"]["credits_consumed"] == 6
    assert reports["credit-report-async-task"]["credits_consumed"] == 3
    assert reports["credit-report-async-flow"]["overlapping_runs"] == 2
    assert api.logs(flow_run_id(state), "creditguard.finished")


def test_a_task_outside_of_any_flow(api, gateway):
    @task(name="lonely")
    @guard(budget=5)
    def lonely() -> dict[str, Any]:
        return dict(current_run()._life.plan.labels)

    labels = lonely()
    assert labels["task"] == "lonely"
    assert not {"flow", "flow_run_id"} & labels.keys()


def test_outside_of_prefect_it_is_the_core_guard(gateway, caplog):
    with caplog.at_level("INFO", "creditguard"), guard("plain", budget=5) as run:
        pass
    assert run.report.labels == {}
    assert [record.event for record in caplog.records] == ["creditguard.admitted", "creditguard.finished"]


def test_two_mapped_tasks_of_which_only_one_fits(api, gateway, ledger):
    refused = threading.Event()

    @task
    def enrich(number: int) -> int:
        try:
            with guard("mapped", budget=80):
                assert refused.wait(60), "both were admitted"
                return number
        except InsufficientCredits:
            refused.set()
            raise

    @flow
    def main() -> None:
        futures = enrich.map([1, 2])
        futures.wait()

    state = main(return_state=True)
    outcomes = sorted(each["table"]["outcome"] for each in api.artifacts(flow_run_id(state)))
    assert outcomes == ["refused", "succeeded"]
    names = [each["event"] for each in api.logs(flow_run_id(state), "creditguard.finished")]
    assert sorted(names) == ["creditguard.admitted", "creditguard.finished", "creditguard.refused"]
    short = next(each for each in api.logs(flow_run_id(state)) if each["event"] == "creditguard.refused")
    assert (short["level"], short["fields"]["shortfall"], short["fields"]["held_by_others"]) == (40, 40, 80)
    assert list(ledger.holds()) == []


def test_of_four_mapped_tasks_two_fit_and_the_others_wait_for_room(api, gateway, ledger):
    held = []

    @task(retries=0)
    @guard("in-turn", budget=50, wait=120, min_interval=0.2)
    def enrich(number: int) -> int:
        held.append(len(ledger.holds()))
        time.sleep(0.5)
        return number

    @flow
    def main() -> list[int]:
        return enrich.map([1, 2, 3, 4]).result()

    state = main(return_state=True)
    assert state.result() == [1, 2, 3, 4]
    assert max(held) == 2
    assert list(ledger.holds()) == []
    assert [each["table"]["outcome"] for each in api.artifacts(flow_run_id(state))] == ["succeeded"] * 4
    assert {each["state"]["type"] for each in api.task_runs(flow_run_id(state))} == {"COMPLETED"}
    waiting = api.logs(flow_run_id(state), "creditguard.waiting")
    said = {each["sentence"] for each in waiting if each["event"] == "creditguard.waiting"}
    assert "in-turn: waiting for room, needs 50 credits, 20 are free (120 on the account, 100 held by 2 others)" in said


def test_an_async_task_that_waits_for_room_does_not_block_the_event_loop(gateway, ledger):
    """Else the one before it would never end, and this one wait in vain."""

    @task
    @guard("in-turn", budget=80, wait=120, min_interval=0.2)
    async def enrich(number: int) -> int:
        await asyncio.sleep(0.5)
        return number

    @flow
    async def main() -> list[int]:
        return await asyncio.gather(enrich(1), enrich(2))

    assert asyncio.run(main()) == [1, 2]
    assert list(ledger.holds()) == []


def test_who_waits_in_vain_is_refused(api, gateway):
    @flow
    def main() -> None:
        with guard("in-vain", budget=500, wait=0.5, min_interval=0.2):
            pytest.fail("there never was enough")

    state = main(return_state=True)
    assert state.is_failed()
    assert state.message.endswith("in-vain: needs 500 credits, 120 are free (120 on the account)")
    (artifact,) = api.artifacts(flow_run_id(state))
    assert (artifact["table"]["outcome"], artifact["figures"]["short by"]) == ("refused", "380")


def test_mapped_tasks_that_fit_each_have_a_report(api, gateway):
    @task
    @guard("fan-out", budget=10)
    def spend(amount: int) -> int:
        gateway.drain(amount)
        current_run().record(amount)
        return amount

    @flow
    def main() -> list[int]:
        return spend.map([1, 2, 3, 4]).result()

    state = main(return_state=True)
    assert state.result() == [1, 2, 3, 4]
    reports = api.artifacts(flow_run_id(state))
    assert sorted(each["table"]["credits_consumed"] for each in reports) == [1, 2, 3, 4]
    assert len({each["table"]["labels.task_run_id"] for each in reports}) == 4


def test_a_cached_task_result_starts_no_run(gateway):
    calls = []

    @task(persist_result=True, cache_policy=INPUTS)
    @guard("cached", budget=10)
    def fetch(number: int) -> int:
        calls.append(number)
        return number

    @flow
    def main() -> list[str]:
        return [fetch(number, return_state=True).name for number in (1, 1, 2)]

    assert main() == ["Completed", "Cached", "Completed"]
    assert calls == [1, 2]
    assert gateway.balance_reads == 4  # two for each run that took place


def test_a_flow_over_a_guard_keeps_its_types(gateway):
    @flow
    @guard("typed", budget=lambda day, count=1: 2 * count)
    def typed(day: dt.date, count: int = 1) -> tuple[type, type, int]:
        return type(day), type(count), int(current_run().budget)

    assert typed("2026-11-22", count="4") == (dt.date, int, 8)
    assert typed.name == "typed"
    assert list(typed.parameters.properties) == ["day", "count"]


def body() -> None: ...


async def async_body() -> None: ...


def generator_body() -> Iterator[None]:
    yield


OBJECTS = {
    "task": lambda: task(body),
    "task with options": lambda: task(retries=1)(body).with_options(name="other"),
    "async task": lambda: task(async_body),
    "generator task": lambda: task(generator_body),
    "materializing task": lambda: materialize("s3://bucket/key")(body),
    "gate": lambda: credit_gate_task,
    "flow": lambda: flow(body),
    "flow with options": lambda: flow(body).with_options(name="other"),
    "async flow": lambda: flow(async_body),
    "partial of a task": lambda: functools.partial(task(body)),
    "what submits a task": lambda: task(body).submit,
    "what maps a task": lambda: task(body).map,
    "what delays a task": lambda: task(body).delay,
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("make", [creditguard.guard, guard])
def test_the_wrong_order_is_refused(kind, make, gateway):
    """Such a guard would run when the task is defined or submitted, and nothing would be guarded."""
    with pytest.raises(TypeError, match="the order is @task"):
        make(budget=5)(OBJECTS[kind]())
    assert gateway.balance_reads == 0


def test_a_sink_of_your_own_gets_the_events(api, gateway):
    class Mine:
        def __init__(self) -> None:
            self.names = []

        def emit(self, event: Any) -> None:
            self.names.append(event.name)

    mine = Mine()

    @flow
    def main() -> None:
        get_run_logger().info("a marker\ncreditguard.marker {}")
        with guard("mine", budget=1, sink=mine):
            pass

    run_id = flow_run_id(main(return_state=True))
    assert mine.names == ["creditguard.admitted", "creditguard.finished"]
    assert [each["event"] for each in api.logs(run_id)] == ["creditguard.marker"]
    assert api.events(run_id, "creditguard.finished")


def test_events_of_another_thread_reach_the_run_log(api, gateway, ledger):
    """A lost lease is told by the thread that renews it, which knows of no flow run."""
    from creditguard.errors import LeaseLost

    @flow
    def main() -> None:
        with guard("suspended", budget=5) as run:
            thread = threading.Thread(
                target=run._life.lease_lost, args=(LeaseLost("the hold lapsed", "sqlite", run.id),)
            )
            thread.start()
            thread.join()

    run_id = flow_run_id(main(return_state=True))
    records = api.logs(run_id, "creditguard.finished")
    assert [(each["event"], each["level"]) for each in records][1] == ("creditguard.lease_lost", 40)
    assert records[-1]["fields"]["lease_lost"] is True
    assert api.events(run_id, "creditguard.lease_lost")


def test_a_server_that_takes_no_artifact_does_not_fail_the_job(gateway, monkeypatch, caplog):
    from prefect.artifacts import MarkdownArtifact

    def broken(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(MarkdownArtifact, "create", broken)

    @flow
    def main() -> str:
        with guard("unlucky", budget=5):
            return get_run_context().flow_run.name

    assert main()
    assert "no artifact of unlucky" in caplog.text
