"""docs/engines.md, Dask: a cluster of two worker processes, with nannies."""

from __future__ import annotations

START = """
from dask.distributed import Client
from on_dask import all_of, illustrate
if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
"""


def test_the_recipe_and_a_refusal_that_is_a_result(recipes):
    out = recipes.python(START + "        print(all_of(client, [['a lighthouse', 'a harbour'], ['a boat'] * 50]))")
    assert out.startswith("[2, InsufficientCredits(")
    assert sorted(recipes.runs(), key=str) == [("illustrate", "refused", None), ("illustrate", "succeeded", 16)]
    assert all(each["dask_key"].startswith("illustrate-") for each in recipes.labels())


def test_an_accident_is_retried(recipes):
    recipes.gateway.fault(path="/api/v1/images/generate", status=503, times=1)
    assert recipes.python(START + "        print(all_of(client, [['a boat']]))") == "[1]\n"
    assert [outcome for _, outcome, _ in recipes.runs()] == ["failed", "succeeded"]


def test_delayed_over_guard(recipes):
    code = (
        """
import dask
from creditguard import guard
from job import draw

@dask.delayed
@guard("sketch", budget=lambda prompts: 8 * len(prompts))
def sketch(prompts):
    return draw(prompts)
"""
        + START
    )
    out = recipes.python(code + "        print(dask.compute(sketch(['a boat']), sketch(['a harbour'])))")
    assert out == "(1, 1)\n"
    assert [outcome for _, outcome, _ in recipes.runs()] == ["succeeded"] * 2


def test_a_kill_is_a_try_and_the_next_one_is_a_run_of_its_own(recipes, sees_it_abandoned):
    recipes.hang()
    (recipes.folder / "killed.py").write_text(START + "        print(all_of(client, [['a boat']]))")
    script = recipes.start("python", "killed.py")
    killed = recipes.kill_the_job()
    assert script.wait(timeout=100) == 0
    assert recipes.output.splitlines()[-1] == "[1]"
    assert recipes.runs() == [("illustrate", "succeeded", 8)]
    sees_it_abandoned(killed)


def test_the_refusal_keeps_its_figures_on_the_way_back(recipes):
    out = recipes.python(START + "        print(all_of(client, [['a boat'] * 50])[0].shortfall)")
    assert out == "280\n"
