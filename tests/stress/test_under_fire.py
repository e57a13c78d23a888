"""The invariant under fire: eight processes, a pool that really drops, and SIGKILL at random.

The pool never goes below zero, `admitted - released` equals the sum of the live holds whenever one looks, and after the dust has
settled the whole balance can be admitted again. The same with the rule broken on purpose must be seen to fail: a stress
that catches nothing proves nothing.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from creditguard import guard
from creditguard.ledgers import open_ledger
from creditguard.sandbox import Gateway

pytestmark = [pytest.mark.stress, pytest.mark.timeout(300)]

WORKERS = 8
SECONDS = 15
KILLS = 40


class Crowd:
    """The workers: spawned, killed while no request of theirs is on its way, and spawned again."""

    def __init__(self, folder, kind):
        self.folder, self.chance = folder, random.Random(7)
        self.pids, self.spawned, self.kills = {}, 0, 0
        command = [sys.executable, Path(__file__).with_name("worker.py"), kind]
        with (folder / "err").open("wb") as err:
            self.nursery = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True
            )
        for slot in range(WORKERS):
            self.spawn(slot)

    def spawn(self, slot):
        state = self.folder / f"state-{slot}"
        state.write_bytes(b"\0")
        self.nursery.stdin.write(f"{self.spawned} {state}\n")
        self.nursery.stdin.flush()
        self.pids[slot] = int(self.nursery.stdout.readline())
        self.spawned += 1

    def kill_one(self):
        slot = self.chance.randrange(WORKERS)
        pid = self.pids[slot]
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        if (self.folder / f"state-{slot}").read_bytes() == b"\0":
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
            self.spawn(slot)
        else:
            os.kill(pid, signal.SIGCONT)

    def stop(self):
        os.killpg(self.nursery.pid, signal.SIGKILL)
        self.nursery.communicate()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite3"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def gateway(ledger_url, monkeypatch):
    with Gateway(200) as gateway:
        gateway.allow_negative = True  # so that an overdraft shows as one
        monkeypatch.setenv("CREDITGUARD_BASE_URL", gateway.url)
        monkeypatch.setenv("APIMALL_API_KEY", gateway.key)
        monkeypatch.setenv("CREDITGUARD_LEDGER", ledger_url)
        monkeypatch.setenv("CREDITGUARD_LOG_FORMAT", "none")  # what the workers write on stderr is a failure
        yield gateway


def fire(gateway, ledger, folder, kind, seconds, kills=0):
    """Keep the crowd at it; the lowest that the pool has been, the polls that found the totals wrong, and the kills."""
    crowd = Crowd(folder, kind)
    lowest, wrong, polls = gateway.credits, [], 0
    try:
        end, next_kill = time.monotonic() + seconds, time.monotonic() + 2
        while time.monotonic() < end or crowd.kills < kills:
            lowest = min(lowest, gateway.credits)
            if lowest < 0 and kind != "right":
                break
            if gateway.credits < 5:  # not before: it is at the edge that a broken rule shows
                gateway.top_up(random.choice([40, 80, 140]))
            totals, held = snapshot(ledger)
            polls += 1
            if totals != held:
                wrong.append((totals, held))
            if kills and time.monotonic() > next_kill:
                crowd.kill_one()
                next_kill = time.monotonic() + 0.2
            time.sleep(0.005)
    finally:
        crowd.stop()
    return min(lowest, gateway.credits), wrong, polls, crowd.kills


def snapshot(ledger):
    """What the totals say is held, and what the holds add up to, of one instant: asked until no run came or went between."""
    for _ in range(1000):
        before = ledger.mark("stress")
        held = sum(live.hold.amount for live in ledger.holds("stress"))
        if ledger.mark("stress") == before:
            return before.admitted - before.released, held
    pytest.fail("the ledger never held still")


def test_the_rule_holds(gateway, ledger_url, tmp_path):
    ledger = open_ledger(ledger_url)
    lowest, wrong, polls, kills = fire(gateway, ledger, tmp_path, "right", SECONDS, KILLS)
    print(f"\n{kills} kills, {polls} polls, lowest pool {lowest}, {ledger.mark('stress').started} runs")
    assert (tmp_path / "err").read_text() == ""
    assert lowest >= 0
    assert wrong == []
    assert kills >= KILLS
    assert polls > 100
    with guard("all of it", budget=gateway.credits, account="stress"):
        pass
    assert ledger.holds("stress") == []
    ledger.close()


@pytest.mark.parametrize("kind", ["released at admission", "checked outside"])
def test_the_broken_rule_is_caught(gateway, ledger_url, tmp_path, kind):
    ledger = open_ledger(ledger_url)
    lowest, *_ = fire(gateway, ledger, tmp_path, kind, 60)
    print(f"\nlowest pool {lowest}")
    assert lowest < 0
    ledger.close()
