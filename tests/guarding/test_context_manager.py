"""`with guard(...)`, on a real gateway and a real ledger: what is admitted, refused, reported, and what a job's end does to it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from creditguard import (
    AuthenticationError,
    ConfigurationError,
    InsufficientCredits,
    LedgerUnavailable,
    SourceError,
    current_run,
    guard,
)
from creditguard.ledgers import open_ledger
from creditguard.ledgers.sqlite import SqliteLedger


def ledger():
    return open_ledger(os.environ["CREDITGUARD_LEDGER"])


def test_a_job_that_fits_runs_and_is_reported(gateway, events):
    with guard("nightly", budget=50, labels={"team": "data"}) as run:
        assert run.balance_before == 120
        with pytest.raises(RuntimeError, match="has not ended"):
            run.report  # noqa: B018
        assert [hold.hold.id for hold in ledger().holds()] == [run.id]
        gateway.drain(30)
    assert run.report.credits_consumed == 30
    assert run.report.basis == "account_delta"
    assert run.report.outcome == "succeeded"
    assert run.report.overlapping_runs == 0
    assert not run.report.over_budget
    assert ledger().holds() == []
    assert ledger().history()[0]["run_id"] == run.id
    assert events.names == ["admitted", "finished"]
    finished = events.last("finished")
    assert (finished.job, finished.credits_consumed, finished.labels) == ("nightly", 30, {"team": "data"})
    assert finished.request_id_before != finished.request_id_after
    name, _, fields = finished.getMessage().partition(" ")
    assert name == "creditguard.finished"
    assert json.loads(fields)["balance_delta"] == 30


def test_a_job_that_does_not_fit_never_starts(gateway, events):
    started = False
    with pytest.raises(InsufficientCredits) as caught, guard("nightly", budget=500):
        started = True
    assert not started
    assert (caught.value.needs, caught.value.has, caught.value.shortfall) == (500, 120, 380)
    assert events.names == ["refused"]
    assert gateway.balance_reads == 1
    assert ledger().holds() == []


def test_warn_mode_starts_although_short(gateway, events):
    with guard("nightly", budget=500, on_short="warn") as run:
        assert ledger().holds()[0].hold.amount == 500_000_000
    assert events.names == ["short", "finished"]
    assert run.report.shortfall == 380


def test_an_empty_batch_needs_nothing(gateway):
    gateway.drain(120)
    with guard("empty", budget=0):
        pass


@pytest.mark.parametrize("keep", [30, "30", Decimal(30)])
def test_what_must_be_kept_is_not_for_the_job(gateway, keep):
    with guard("fits", budget=90, keep=keep):
        pass
    with pytest.raises(InsufficientCredits), guard("does not", budget=91, keep=keep):
        pass


def test_an_unreadable_balance_fails_closed(gateway, events):
    gateway.fault(status=401)
    with pytest.raises(AuthenticationError), guard("nightly", budget=5):
        pytest.fail("must not start")
    assert events.names == ["unreadable"]
    assert events.records[0].policy == "abort"


@pytest.mark.parametrize("arguments", [{"on_unreadable": "warn"}, {"on_short": "warn"}])
def test_an_unreadable_balance_fails_open_when_told_to(gateway, events, arguments):
    gateway.fault(status=404)
    with guard("nightly", budget=5, **arguments) as run:
        assert run.balance_before is None
    assert events.names == ["unreadable", "unreadable", "finished"]
    assert run.report.basis == "unknown"
    assert run.report.credits_consumed is None
    assert events.records[-1].levelname == "WARNING"


def test_recorded_use_is_reported_beside_the_delta(gateway):
    with guard("nightly", budget=50) as run:
        gateway.drain(24)
        run.record(16)
        run.record("8")
        run.record(-4)
        assert run.recorded == 20
    assert (run.report.credits_consumed, run.report.basis, run.report.drift) == (20, "recorded", 4)
    with pytest.raises(ConfigurationError, match=r"record\(\)"):
        run.record("12x")


def test_a_top_up_makes_consumption_unknown_and_not_zero(gateway):
    with guard("nightly", budget=50) as run:
        gateway.drain(10)
        gateway.top_up(500)
    assert (run.report.balance_delta, run.report.credits_consumed, run.report.basis) == (-490, None, "unknown")


def test_going_over_budget_is_reported(gateway, events):
    with guard("nightly", budget=5) as run:
        gateway.drain(30)
    assert run.report.over_budget
    assert events.last("finished").levelname == "WARNING"


class Own(BaseException):
    """A job's own exception, of the most awkward kind."""


@pytest.mark.parametrize("exit_reading", ["works", "fails"])
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("theirs"), "failed"),
        (Own(), "failed"),
        (SystemExit(3), "failed"),
        (SystemExit(0), "succeeded"),
        (KeyboardInterrupt(), "cancelled"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_the_jobs_own_exception_comes_out_unchanged(gateway, events, error, outcome, exit_reading):
    with pytest.raises(type(error)) as caught, guard("nightly", budget=5) as run:
        if exit_reading == "fails":
            gateway.fault(status=403)
        raise error
    assert caught.value is error
    assert run.report.outcome == outcome
    assert events.names[-1] == "finished"
    assert (run.report.balance_after is None) == (exit_reading == "fails")
    assert ledger().holds() == []


def test_a_gateway_that_is_gone_at_exit_costs_the_job_nothing(gateway, events, monkeypatch):
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "0.5")
    with guard("nightly", budget=5) as run:
        gateway.stop()
    assert events.names == ["admitted", "unreadable", "finished"]
    assert run.report.outcome == "succeeded"


def test_ctrl_c_during_the_exit_reading_still_frees_the_hold(gateway, events):
    with pytest.raises(KeyboardInterrupt), guard("nightly", budget=5) as run:
        gateway.fault(delay=5)
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    assert run.report.balance_after is None
    assert events.names[-1] == "finished"
    assert ledger().holds() == []
    gateway.clear_faults()


def test_ctrl_c_during_the_first_reading_takes_no_hold(gateway):
    gateway.fault(delay=5)
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt), guard("nightly", budget=5):
        pytest.fail("must not start")
    assert ledger().holds() == []
    gateway.clear_faults()


def test_one_guard_entered_by_sixteen_threads_at_once(gateway):
    shared = guard("threads", budget=5)
    barrier = threading.Barrier(16)

    def job(_):
        with shared as run:
            barrier.wait(20)
            assert current_run() is run
            run.record(1)
        return run

    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(job, range(16)))
    assert len({run.id for run in runs}) == 16
    assert all(run.report.credits_recorded == 1 for run in runs)
    assert all(run.report.overlapping_runs == 15 for run in runs)
    assert ledger().holds() == []


def test_one_guard_nested_in_itself(gateway):
    shared = guard("nested", budget=5)
    with shared as outer:
        with shared as inner:
            assert current_run() is inner
            inner.record(1)
        assert current_run() is outer
        outer.record(2)
    with pytest.raises(LookupError):
        current_run()
    assert (inner.report.credits_consumed, outer.report.credits_consumed) == (1, 2)
    assert inner.report.run_id != outer.report.run_id
    assert inner.report.overlapping_runs == 1


def test_a_guard_left_in_another_thread_than_it_was_entered_in(gateway):
    """As an exit stack of a fixture does."""
    shared = guard("moved", budget=5)
    run = shared.__enter__()
    thread = threading.Thread(target=shared.__exit__, args=(None, None, None))
    assert current_run() is run
    thread.start()
    thread.join()
    assert run.report.outcome == "succeeded"
    with pytest.raises(LookupError):
        current_run()


def test_jobs_that_fit_one_by_one_but_not_together(gateway):
    with guard("first", budget=80):
        with pytest.raises(InsufficientCredits) as caught, guard("second", budget=80):
            pytest.fail("must not start")
        assert (caught.value.has, caught.value.held_by_others) == (40, 80)
    with guard("third", budget=80):
        pass


def test_a_refusal_says_how_many_others_hold_what_is_held(gateway):
    first, second, third = guard("first", budget=80), guard("second", budget=30), guard("third", budget=30)
    with first, second, pytest.raises(InsufficientCredits) as caught, third:
        pytest.fail("must not start")
    assert str(caught.value) == "third: needs 30 credits, 10 are free (120 on the account, 110 held by 2 others)"
    assert pickle.loads(pickle.dumps(caught.value)).others == 2


def test_keys_that_share_an_account_share_its_holds(gateway):
    with guard("first", budget=80, account="team"):
        with pytest.raises(InsufficientCredits), guard("second", budget=80, account="team"):
            pass
        with guard("elsewhere", budget=80):
            pass


def test_ledger_none_holds_nothing(gateway, monkeypatch):
    monkeypatch.setenv("CREDITGUARD_LEDGER", "none")
    with guard("first", budget=80) as first:
        with guard("second", budget=80) as second:
            gateway.drain(10)
        assert second.report.basis == "shared_account_delta"
    assert first.report.overlapping_runs == 1
    with guard("alone", budget=80) as alone:
        gateway.drain(10)
    assert (alone.report.basis, alone.report.credits_consumed) == ("account_delta", 10)


def test_a_ledger_that_was_named_and_cannot_be_used_fails_closed(gateway, events, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CREDITGUARD_LEDGER", f"sqlite:///{tmp_path}/file/ledger.sqlite3")
    with pytest.raises(LedgerUnavailable), guard("nightly", budget=5):
        pytest.fail("must not start")
    assert events.names == ["ledger_unavailable"]
    with guard("open", budget=5, on_unreadable="warn") as run:
        gateway.drain(3)
    assert events.names[1:] == ["ledger_unavailable", "admitted", "finished"]
    assert (run.report.credits_consumed, run.report.basis) == (3, "shared_account_delta")


def test_the_default_ledger_is_tried_again_after_a_while(gateway, tmp_path):
    """It may only have been busy, and a process may live for months."""
    (tmp_path / "state").write_text("in the way")
    script = """
import os, time
from creditguard import guard
from creditguard.engine import engine
from creditguard.ledgers import default_url, open_ledger
engine._WITHOUT = 1.0
with guard("nightly", budget=5):
    pass
os.unlink(os.environ["XDG_STATE_HOME"])
with guard("nightly", budget=5):
    pass
time.sleep(1.5)
with guard("nightly", budget=5):
    print([live.hold.job for live in open_ledger(default_url()).holds()])
"""
    environment = {name: value for name, value in os.environ.items() if name != "CREDITGUARD_LEDGER"}
    environment |= {"XDG_STATE_HOME": f"{tmp_path}/state"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "['nightly']\n"), done.stderr


def test_the_default_ledger_that_cannot_be_used_is_passed_over_once(gateway, tmp_path):
    (tmp_path / "file").write_text("in the way")
    script = """
import logging
from creditguard import guard
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(event)s")
for _ in range(2):
    with guard("nightly", budget=5):
        pass
"""
    environment = {name: value for name, value in os.environ.items() if name != "CREDITGUARD_LEDGER"}
    environment |= {"XDG_STATE_HOME": f"{tmp_path}/file/state"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split("\n")[:-1] == [
        "WARNING creditguard.ledger_unavailable",
        "INFO creditguard.admitted",
        "INFO creditguard.finished",
        "INFO creditguard.admitted",
        "INFO creditguard.finished",
    ]
    assert done.stdout == ""


def test_a_forked_child_leaves_its_parents_run_alone(gateway):
    script = """
import os, sys
from creditguard import guard
with guard("parent", budget=80) as run:
    pid = os.fork()
    if pid == 0:
        pass  # leaves the block as the parent will
    else:
        os.waitpid(pid, 0)
        with guard("another", budget=40): pass
if pid:
    print("parent", run.report.outcome)
else:
    try:
        run.report
    except RuntimeError:
        print("child None")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert sorted(done.stdout.split("\n")) == ["", "child None", "parent succeeded"], done.stderr
    assert gateway.balance_reads == 4
    assert ledger().holds() == []


def test_a_forked_child_guards_runs_of_its_own(gateway):
    script = """
import os
from creditguard import guard, InsufficientCredits
with guard("parent", budget=80):
    pid = os.fork()
    if pid == 0:
        try:
            with guard("child", budget=80): pass
        except InsufficientCredits:
            with guard("child", budget=40): os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    with guard("after", budget=40): pass  # the child died holding 40
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert ledger().holds() == []


def test_a_run_that_vanished_gives_its_hold_back(gateway, tmp_path):
    """An interrupt between the admission and the block's first line, in a process that lives on."""
    short_lived = SqliteLedger(str(tmp_path / "short.sqlite3"))
    guard("vanishes", budget=80, ledger=short_lived)._entry().__enter__()
    deadline = time.monotonic() + 5
    while short_lived.holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert short_lived.holds() == []
    short_lived.close()


class Shelf:
    """A source of the user's own."""

    name, unit, account = "shelf", "boxes", "shelf-1"

    def __init__(self, *amounts):
        self.amounts = list(amounts)

    def read(self, timeout):
        from datetime import datetime, timezone

        from creditguard import Balance

        amount = self.amounts.pop(0)
        if isinstance(amount, Exception):
            raise amount
        return Balance(Decimal(amount), self.unit, datetime.now(timezone.utc), None, self.name)


def test_a_source_of_ones_own(monkeypatch, tmp_path):
    with guard("boxes", budget="2.5", source=Shelf("10.25", "8"), ledger=f"sqlite:///{tmp_path}/l.sqlite3") as run:
        assert run.headroom == Decimal("10.25")
    assert (run.report.unit, run.report.credits_consumed, run.report.account) == ("boxes", Decimal("2.25"), "shelf-1")


def test_a_source_that_breaks_its_promise_is_a_source_error(tmp_path):
    source = Shelf(ValueError("https://shelf.example/?key=hush"))
    with pytest.raises(SourceError) as caught, guard("boxes", budget=1, source=source, ledger="none"):
        pass
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"budget": -1}, "budget"),
        ({"budget": True}, "budget"),
        ({"budget": float("nan")}, "budget"),
        ({"budget": "12x"}, "budget"),
        ({"budget": 1, "keep": "much"}, "keep"),
        ({"budget": 1, "on_short": "explode"}, "on_short"),
        ({"budget": 1, "on_unreadable": "panic"}, "on_unreadable"),
        ({"budget": 1, "settle": -1}, "settle"),
        ({"budget": 1, "max_age": "soon"}, "max_age"),
        ({"budget": 1, "account": ""}, "account"),
        ({"name": "two\nlines", "budget": 1}, "name"),
    ],
)
def test_bad_arguments_are_told_where_they_are_written(arguments, named):
    with pytest.raises(ConfigurationError, match=f"^{named} must"):
        guard(**arguments)


def test_what_is_missing_is_told_before_the_job(gateway, monkeypatch):
    with pytest.raises(ConfigurationError, match="has no budget"), guard("nightly"):
        pass
    with pytest.raises(ConfigurationError, match="source must be"), guard("nightly", budget=1, source=42):
        pass
    with pytest.raises(ConfigurationError, match="CREDITGUARD_LEDGER|ledger"), guard("n", budget=1, ledger="mongo://x"):
        pass
    monkeypatch.delenv("APIMALL_API_KEY")
    with pytest.raises(ConfigurationError, match="APIMALL_API_KEY"), guard("nightly", budget=1):
        pass
