"""docs/engines.md, Dagster: the job and the asset, in this process and by its multiprocess executor."""

from __future__ import annotations

import json

CONFIG = "run_config = lambda prompts: {'ops': {'illustrate': {'config': {'prompts': prompts}}}}\n"


def test_the_recipe(recipes):
    out = recipes.python(
        CONFIG
        + """
import dagster
from pipeline import nightly, posters
done = nightly.execute_in_process(run_config=run_config(["a lighthouse", "a harbour"]))
print(done.success, done.output_for_node("illustrate"), done.run_id)
print(dagster.materialize([posters]).output_for_node("posters"))
"""
    ).split()
    assert (out[:2], out[3]) == (["True", "2"], "2")
    assert recipes.runs() == [("illustrate", "succeeded", 16), ("posters", "succeeded", 16)]
    assert recipes.labels() == [{"dagster_run": out[2]}, {}]


def test_a_refusal_is_not_retried_and_an_accident_is(recipes):
    recipes.gateway.fault(path="/api/v1/images/generate", status=503, times=1)
    kinds, failure, description = recipes.python(
        CONFIG
        + """
from pipeline import nightly
done = nightly.execute_in_process(run_config=run_config(["a boat"]))
print([event.event_type_value for event in done.all_events if event.event_type_value.startswith("STEP")])
done = nightly.execute_in_process(run_config=run_config(["a boat"] * 50), raise_on_error=False)
(failed,) = [event for event in done.all_events if event.event_type_value == "STEP_FAILURE"]
print([event.event_type_value for event in done.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"])
print(failed.step_failure_data.user_failure_data.description)
"""
    ).splitlines()
    assert "STEP_UP_FOR_RETRY" in kinds
    assert failure == "[]"
    assert description == "illustrate: needs 400 credits, 112 are free (112 on the account)"
    assert [outcome for _, outcome, _ in recipes.runs()] == ["failed", "succeeded", "refused"]


def test_a_kill_is_a_try_and_the_next_one_is_a_run_of_its_own(recipes, sees_it_abandoned):
    recipes.hang()
    (recipes.folder / "home").mkdir()
    recipes.environment |= {"DAGSTER_HOME": f"{recipes.folder}/home"}
    config = {"ops": {"illustrate": {"config": {"prompts": ["a boat"]}}}}
    (recipes.folder / "run.yaml").write_text(json.dumps(config))
    job = recipes.start("dagster", "job", "execute", "-f", "pipeline.py", "-j", "nightly", "-c", "run.yaml")
    killed = recipes.kill_the_job()
    assert job.wait(timeout=60) == 0
    assert "ChildProcessCrashException" in recipes.output
    assert "STEP_UP_FOR_RETRY" in recipes.output
    assert recipes.runs() == [("illustrate", "succeeded", 8)]
    sees_it_abandoned(killed)
