"""docs/engines.md, Celery: its tasks in a real worker (prefork), with a folder as broker and SQLite as backend."""

from __future__ import annotations

import celery
import pytest
from celery.exceptions import WorkerLostError
from celery.result import AsyncResult

from creditguard import InsufficientCredits


@pytest.fixture
def app(request, recipes):
    """The app of the recipe as a program sees it that only sends, and a worker that runs it, with settings of the test's own.

    (SQLite as a broker does not bear the redelivery: its transport shares one session among threads.)"""
    for folder in ("queue", "control"):
        (recipes.folder / folder).mkdir()
    folders = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
    folders = {name: f"{recipes.folder}/{folder}" for name, folder in folders.items()}
    settings = {"broker_url": "filesystem://", "broker_transport_options": folders} | getattr(request, "param", {})
    (recipes.folder / "worker.py").write_text(f"from tasks import app\napp.conf.update({settings})\n")
    backend = recipes.environment["CELERY_RESULT_BACKEND"] = f"db+sqlite:///{recipes.folder}/results.db"
    recipes.start("celery", "-A", "worker", "worker", "--concurrency", "2", "-l", "INFO")
    app = celery.Celery("sender", backend=backend)
    app.conf.update(settings)
    recipes.eventually(lambda: " ready." in recipes.output)
    yield app
    app.close()


def answer(task: AsyncResult):
    return task.get(timeout=60, interval=0.1)


def test_the_recipe(recipes, app):
    task = app.send_task("tasks.illustrate", [["a lighthouse", "a harbour"]])  # by name, as beat does
    assert answer(task) == 2
    assert answer(app.send_task("tasks.sketch", [["a boat"]])) == 1
    assert recipes.runs() == [("illustrate", "succeeded", 16), ("sketch", "succeeded", 8)]
    assert recipes.labels() == [{"celery_task": task.id}, {}]
    assert recipes.gateway.credits == 120 - 24
    assert "creditguard.finished" in recipes.output


def test_a_refusal_is_not_retried_and_an_accident_is(recipes, app):
    with pytest.raises(InsufficientCredits, match="illustrate: needs 400 credits, 120 are free") as refused:
        answer(app.send_task("tasks.illustrate", [["a boat"] * 50]))
    assert refused.value.shortfall == 280
    assert recipes.runs() == [("illustrate", "refused", None)]
    recipes.gateway.fault(path="/api/v1/images/generate", status=503, times=1)
    app.send_task("tasks.illustrate", [["a boat"]])
    recipes.eventually(lambda: "Retry in" in recipes.output)
    assert recipes.runs()[1:] == [("illustrate", "failed", 0)]


def test_a_kill(recipes, app, sees_it_abandoned):
    recipes.hang()
    task = app.send_task("tasks.illustrate", [["a boat"]])
    killed = recipes.kill_the_job()
    with pytest.raises(WorkerLostError):
        answer(task)
    sees_it_abandoned(killed)
    assert recipes.labels()[0] == {"celery_task": task.id}
    assert answer(app.send_task("tasks.sketch", [["a boat"]])) == 1


@pytest.mark.parametrize(
    "app", [{"task_acks_late": True, "task_reject_on_worker_lost": True}], indirect=True, ids=["late"]
)
def test_a_kill_of_a_task_that_is_acknowledged_late_is_a_try(recipes, app, sees_it_abandoned):
    recipes.hang()
    task = app.send_task("tasks.illustrate", [["a boat"]])
    killed = recipes.kill_the_job()
    recipes.eventually(recipes.runs)
    assert recipes.runs() == [("illustrate", "succeeded", 8)]
    assert recipes.labels() == [{"celery_task": task.id}]
    sees_it_abandoned(killed)


def test_revoke_ends_the_run_with_its_report(recipes, app):
    recipes.hang()
    task = app.send_task("tasks.illustrate", [["a boat"]])
    recipes.eventually(lambda: recipes.gateway.requests["/api/v1/images/generate"])
    app.control.revoke(task.id, terminate=True)
    recipes.eventually(recipes.runs)
    assert recipes.ledger.holds() == []
    assert recipes.runs() == [("illustrate", "failed", 0)]
