"""docs/engines.md, Luigi: with its local scheduler, in its own process and in two."""

from __future__ import annotations


def luigi(recipes, prompts, *options):
    arguments = "luigi", "--module", "illustrations", "Illustrate", "--prompts", prompts, "--local-scheduler", *options
    return recipes.start(*arguments, "--retcode-task-failed", "30")


def test_the_recipe(recipes):
    assert luigi(recipes, '["a lighthouse", "a harbour"]').wait(timeout=60) == 0
    (done,) = recipes.folder.glob("Illustrate*.txt")
    assert done.read_text() == "2\n"
    assert recipes.runs() == [("illustrate", "succeeded", 16)]
    assert recipes.labels() == [{"luigi_task": done.stem}]


def test_a_refusal_is_not_retried(recipes):
    prompts = str(["a boat"] * 50).replace("'", '"')
    keep_alive = "--worker-keep-alive", "--scheduler-retry-delay", "1", "--worker-wait-interval", "1"
    assert luigi(recipes, prompts, *keep_alive).wait(timeout=60) == 30
    assert recipes.runs() == [("illustrate", "refused", None)]
    assert "needs 400 credits, 120 are free" in recipes.output


def test_the_decorator_on_run(recipes):
    out = recipes.python("""
import luigi
from creditguard import guard
from job import draw

class Sketch(luigi.Task):
    prompts = luigi.ListParameter()
    done = False

    @guard("sketch", budget=lambda self: 8 * len(self.prompts))
    def run(self):
        type(self).done = bool(draw(self.prompts))

    def complete(self):
        return self.done

print(luigi.build([Sketch(prompts=["a boat"])], local_scheduler=True, log_level="ERROR"))
""")
    assert out == "True\n"
    assert recipes.runs() == [("sketch", "succeeded", 8)]


def test_a_kill(recipes, sees_it_abandoned):
    recipes.hang()
    job = luigi(recipes, '["a boat"]', "--workers", "2")
    killed = recipes.kill_the_job()
    assert job.wait(timeout=60) == 30
    assert "died unexpectedly" in recipes.output
    sees_it_abandoned(killed)
