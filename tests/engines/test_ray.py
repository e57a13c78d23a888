"""docs/engines.md, Ray: a cluster of its own in each test, on this machine."""

from __future__ import annotations

START = "import ray\nray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\nfrom on_ray import illustrate, result_of, sketch\n"


def test_the_recipe(recipes):
    out = recipes.python(
        START
        + """
task = illustrate.remote(["a lighthouse", "a harbour"])
print(result_of(task), task.task_id().hex(), result_of(sketch.remote(["a boat"])))
print(result_of(illustrate.remote(["a boat"] * 50)))
"""
    ).splitlines()
    count, task, sketched = out[0].split()
    assert (count, sketched) == ("2", "1")
    assert out[1] == "not started: illustrate: needs 400 credits, 96 are free (96 on the account)"
    assert recipes.runs() == [
        ("illustrate", "succeeded", 16), ("sketch", "succeeded", 8), ("illustrate", "refused", None)
    ]  # fmt: skip
    assert recipes.labels()[0] == {"ray_task": task}


def test_a_function_of_the_script_is_sent_by_value_also_after_it_ran_there(recipes):
    out = recipes.python("""
import ray
from creditguard import guard
from job import draw

@guard(budget=8)
def poster():
    return draw(["a boat"])

print(poster())
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
print(ray.get(ray.remote(poster).remote()))
""")
    assert out.split() == ["1", "1"]
    assert recipes.runs() == [("poster", "succeeded", 8)] * 2


def test_a_kill_is_a_try_and_the_next_one_is_a_run_of_its_own(recipes, sees_it_abandoned):
    recipes.hang()
    (recipes.folder / "killed.py").write_text(START + "print(result_of(illustrate.remote(['a boat'])))\n")
    script = recipes.start("python", "killed.py")
    killed = recipes.kill_the_job()
    assert script.wait(timeout=100) == 0
    assert recipes.output.splitlines()[-1] == "1"
    assert recipes.runs() == [("illustrate", "succeeded", 8)]
    sees_it_abandoned(killed)


def test_cancel_ends_the_run_with_its_report(recipes):
    recipes.hang()
    (recipes.folder / "cancelled.py").write_text(
        START
        + """
from pathlib import Path
import time
task = illustrate.remote(["a boat"])
while not Path("cancel").exists():
    time.sleep(0.1)
ray.cancel(task)
try:
    ray.get(task)
except ray.exceptions.TaskCancelledError:
    print("cancelled")
"""
    )
    script = recipes.start("python", "cancelled.py")
    recipes.eventually(lambda: recipes.gateway.requests["/api/v1/images/generate"])
    (recipes.folder / "cancel").touch()
    assert script.wait(timeout=100) == 0
    assert recipes.output.splitlines()[-1] == "cancelled"
    recipes.eventually(recipes.runs)
    assert recipes.runs() == [("illustrate", "cancelled", 0)]
    assert recipes.ledger.holds() == []
