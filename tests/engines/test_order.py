"""`@guard` over what an engine made of a function is refused, and so is what only sends it: the real objects, no stand-ins."""

from __future__ import annotations

import atexit
import functools
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import celery
import dagster
import dask
import distributed
import luigi
import pytest
import ray

from creditguard import guard

APP = celery.Celery("order", broker="memory://", backend="cache+memory://", set_as_current=False)


def body(number=1):
    return number


class Actor:
    def draw(self):
        pass


class Nightly(luigi.Task):
    def run(self):
        return 1


@dagster.graph
def graph():
    dagster.op(body, name="in_graph")()


@dagster.job
def nightly():
    dagster.op(body, name="in_job")()


def celery_task(**options):
    return APP.task(body, name=f"body{len(APP.tasks)}", **options)


THREADS = ThreadPool(1)
atexit.register(THREADS.terminate)
CLIENT = object.__new__(distributed.Client)  # its methods alone are asked for
REFUSED = {
    "celery": [
        celery_task,
        lambda: celery_task(lazy=False),
        lambda: celery_task().delay,
        lambda: celery_task().apply_async,
        lambda: celery_task().s,
        lambda: celery_task().s(1),
        lambda: celery_task().s(1).delay,
        lambda: celery.shared_task(body),
        lambda: APP.send_task,
        lambda: functools.partial(celery_task().delay, 1),
    ],
    "dagster": [
        lambda: dagster.op(body),
        lambda: dagster.asset(body),
        lambda: graph,
        lambda: dagster.sensor(job=nightly)(body),
        lambda: dagster.schedule(cron_schedule="0 3 * * *", job=nightly)(body),
        lambda: nightly,
        lambda: nightly.execute_in_process,
    ],
    "ray": [
        lambda: ray.remote(body),
        lambda: ray.remote(body).remote,
        lambda: ray.remote(body).bind,
        lambda: ray.remote(body).options(num_cpus=1),
        lambda: ray.remote(body).options(num_cpus=1).remote,
        lambda: ray.remote(Actor),
        lambda: ray.remote(Actor).remote,
    ],
    "dask": [lambda: dask.delayed(body), lambda: dask.delayed(body)(1), lambda: dask.delayed(body)(1).compute],
    "distributed": [lambda: CLIENT.submit, lambda: CLIENT.map],
    "luigi": [Nightly, lambda: Nightly().complete],
    "concurrent": [lambda: ThreadPoolExecutor().submit, lambda: ThreadPoolExecutor().map, lambda: ProcessPoolExecutor().submit],
    "multiprocessing": [lambda: THREADS.apply_async, lambda: THREADS.imap],
}  # fmt: skip


@pytest.mark.parametrize("engine", REFUSED)
def test_the_wrong_order_is_refused(engine):
    for make in REFUSED[engine]:
        with pytest.raises(TypeError, match=f"this is {engine}'s own .*the order is @task over @guard"):
            guard(budget=1)(make())


def test_a_class_is_refused():
    for kind in (Nightly, Actor):
        with pytest.raises(TypeError, match="not a class; put it on the method"):
            guard(budget=1)(kind)


def test_what_a_user_wrote_is_guarded(credit_gateway):
    task = Nightly()
    task.run = guard("nightly", budget=1)(task.run)
    assert luigi.build.__module__.startswith("luigi")
    assert task.run() == 1
    assert guard("called", budget=1)(celery_task(lazy=False).run)(2) == 2
    assert guard("built", budget=1)(luigi.build)([], local_scheduler=True, log_level="ERROR") is True
    assert credit_gateway.balance_reads == 6
