"""docs/engines.md, process pools and GNU parallel."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/engines.md").read_text()


def test_the_recipe(recipes):
    done = recipes.start("python", "pool.py", *["a boat"] * 50)
    assert done.wait(timeout=60) == 0
    said = [line for line in recipes.output.splitlines() if not line.startswith("{")]
    assert said[0] == "2"
    assert re.fullmatch(r"not started: illustrate: needs 400 credits, 1\d\d are free \(1\d\d on the account\)", said[1])
    assert sorted(recipes.runs(), key=str) == [("illustrate", "refused", None), ("illustrate", "succeeded", 16)]


def test_labels(recipes):
    recipes.python("""
from pool import main, sketch
if __name__ == "__main__":
    main(sketch, [["a boat"], ["a harbour"]])
""")
    assert [outcome for _, outcome, _ in recipes.runs()] == ["succeeded"] * 2
    assert all(each["worker"] > 1 for each in recipes.labels())


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_multiprocessing_pool(recipes, method):
    out = recipes.python(f"""
from multiprocessing import get_context
from pool import illustrate, sketch
if __name__ == "__main__":
    sketch(["a boat"])  # a guard in the parent, too: a fork begins with nothing
    with get_context("{method}").Pool(2) as pool:
        print(pool.map(illustrate, [["a boat"], ["a harbour"]]))
""")
    assert out == "[1, 1]\n"
    assert [outcome for _, outcome, _ in recipes.runs()] == ["succeeded"] * 3


def test_a_kill(recipes, sees_it_abandoned):
    recipes.hang()
    (recipes.folder / "killed.py").write_text("""
from pool import main, sketch
if __name__ == "__main__":
    main(sketch, [["a boat"]])
""")
    job = recipes.start("python", "killed.py")
    killed = recipes.kill_the_job()
    assert job.wait(timeout=60) == 1
    assert "BrokenProcessPool" in recipes.output
    sees_it_abandoned(killed)


@pytest.mark.skipif(shutil.which("parallel") is None, reason="GNU parallel is not installed here")
class TestParallel:
    FIRST, LATER = re.search(r"```sh\n(parallel .*\n .*)\n(parallel .*)\n```", PAGE).groups()

    def lines(self, recipes):
        log = (recipes.folder / "jobs.log").read_text().splitlines()[1:]
        return [tuple(map(int, (row[0], *row[6:8]))) for row in sorted(line.split("\t") for line in log)]

    @pytest.fixture
    def parallel(self, recipes):
        (recipes.folder / "prompts.txt").write_text("a lighthouse\na harbour\n")
        (recipes.folder / "draw.py").write_text("""
import sys
from apimall import client, generate
with client() as api:
    generate(api, sys.argv[1])
""")
        return lambda line: recipes.start("sh", "-c", line)

    def test_a_refusal_waits_in_the_log_for_the_top_up(self, recipes, parallel):
        recipes.gateway.set_credits(8)
        assert parallel(self.FIRST.replace("--jobs 4", "--jobs 1")).wait(timeout=60) == 1
        assert self.lines(recipes) == [(1, 0, 0), (2, 75, 0)]
        recipes.gateway.set_credits(20)
        assert parallel(self.LATER).wait(timeout=60) == 0
        assert [outcome for _, outcome, _ in recipes.runs()] == ["succeeded", "refused", "succeeded"]
        assert recipes.labels() == [{"job": "1"}, {"job": "2"}, {"job": "2"}]

    def test_a_kill(self, recipes, parallel, sees_it_abandoned):
        recipes.hang()
        (recipes.folder / "prompts.txt").write_text("a lighthouse\n")
        job = parallel(self.FIRST)
        killed = recipes.kill_the_job()
        assert job.wait(timeout=90) != 0
        assert self.lines(recipes) == [(1, 137, 0)]
        sees_it_abandoned(killed)
