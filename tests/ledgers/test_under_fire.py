"""The invariant under fire, and proof that the same fire would find a ledger whose rule is broken. See fire.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from itertools import count
from typing import Any

import psycopg
import pytest
from ledger_world import HERE, ROOT, Backend, Server, in_balance, in_threads, new_owner
from promises import READING

from creditguard.rules.values import Hold, Mark

pytestmark = pytest.mark.stress


def fire(backend: Backend, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "fire.py"), backend.url, *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("rule", ["right", "waiting"])
def test_the_pool_is_never_overdrawn_and_the_totals_are_always_right(backend: Backend, rule: str) -> None:
    figures = fire(backend, "--seconds", "10", "--workers", "8", "--kills", "50", "--rule", rule)
    assert figures["kills"] >= 40, figures
    assert figures["died"] == figures["kills"], f"a worker died by itself: {figures}"
    assert figures["lowest"] >= 0, figures
    assert figures["wrong"] == 0, figures
    assert figures["polls"] > 200, figures
    assert figures["runs"] > 100, figures
    assert figures["reports"] == figures["runs"], f"a run ended without a trace: {figures}"
    assert figures["abandoned"] > 0, figures
    assert figures["whole_pool_admitted"], figures
    assert figures["left_over"] == 0, figures


@pytest.mark.parametrize("rule", ["late", "outside", "early", "lagging"])
def test_a_broken_rule_is_found_out(backend: Backend, rule: str) -> None:
    figures = fire(backend, "--seconds", "30", "--rule", rule)
    assert figures["lowest"] < 0, figures
    assert figures["wrong"] == 0, "the totals are right: it is the admission that is not"


CLIENTS = 8


def on_new_accounts(backend: Backend, seconds: float) -> tuple[int, list[str]]:
    """Clients that come all at once to an account that nobody has used, then to the next one, and do this or that with it. How
    often; and which runs were refused, whereupon it ends: there is room for all."""
    ends, over, refused = time.monotonic() + seconds, threading.Event(), list[str]()

    def look() -> None:
        if refused or time.monotonic() > ends:
            over.set()

    gate = threading.Barrier(CLIENTS, look)
    ledgers = [backend.client() for _ in range(CLIENTS)]

    def client(me: int) -> int:
        ledger, owner = ledgers[me], new_owner()
        for number in count():
            gate.wait(30)
            if over.is_set():
                return number
            account, run = f"new-{number}", f"{number}-{me}"
            match (me + number) % CLIENTS:
                case 0:
                    ledger.publish(account, READING)
                case 1:
                    ledger.recent(account, max_age=1, claim=1)
                case 2:
                    ledger.set_lagging(account, lagging=True)
                case role:
                    hold = Hold(run, account, 10, "new", waits=5 if role == 3 else 0)
                    if ledger.reserve(hold, owner, available=10 * CLIENTS, mark=Mark()).admitted:
                        ledger.settle(run, account, {"run_id": run, "job": "new", "outcome": "succeeded"})
                    else:
                        refused.append(run)
        raise AssertionError

    return in_threads(CLIENTS, client)[0], refused


def test_a_crowd_on_an_account_that_is_new_to_all(backend: Backend) -> None:
    rounds, refused = on_new_accounts(backend, 4)
    assert not refused
    assert rounds > 20
    assert in_balance(backend.url)
    ledger = backend.client()
    assert all(mark.started == mark.ended == CLIENTS - 3 for mark in (ledger.mark(f"new-{n}") for n in range(rounds)))


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
def test_a_look_that_misses_a_new_account_is_found_out(backend: Backend, server: Server) -> None:
    """With the rule as it once was: whoever finds the account there by now takes what was decided without it for an answer."""
    right = """EXIT WHEN admitted;
                a := creditguard.lock_account(p_account);"""
    broken = """EXIT WHEN admitted OR EXISTS (SELECT 1 FROM creditguard.accounts x WHERE x.account = p_account);
                INSERT INTO creditguard.accounts (account) VALUES (p_account) ON CONFLICT DO NOTHING;"""
    found = server.execute(
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'creditguard'::regnamespace"
    )
    (reserve,) = (function for (function,) in found if right in function)
    with psycopg.connect(backend.url) as connection:
        connection.execute(reserve.replace(right, broken).encode())
    _, refused = on_new_accounts(backend, 60)
    assert refused
