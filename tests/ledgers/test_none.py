"""The ledger that is off."""

from __future__ import annotations

import os

from ledger_world import new_owner
from promises import READING, ask_all

from creditguard.ledgers import open_ledger
from creditguard.rules.values import Grant, Hold, Mark


def test_everything_is_admitted_and_overlaps_are_counted() -> None:
    ledger, owner = open_ledger("none"), new_owner()
    for run in ("one", "two", "two"):
        grant = ledger.reserve(Hold(run, "a", 80, "job"), owner, available=0, mark=Mark())
        assert grant == Grant(admitted=True, held_by_others=0)
    ledger.reserve(Hold("three", "b", 80, "job"), owner, available=None, mark=None)
    assert ledger.mark("a") == Mark(started=2)
    ledger.settle("one", "a", {"job": "job"})
    ledger.settle("one", "a", {"job": "job"})
    assert [ledger.release("two"), ledger.release("two"), ledger.release("never")] == [True, False, False]
    assert ledger.mark("a") == Mark(started=2, ended=2)
    assert ledger.mark("b") == Mark(started=1)


def test_its_verbs_answer_as_those_of_any_ledger() -> None:
    assert ask_all(open_ledger("none")) == 0


def test_nothing_is_kept() -> None:
    ledger, owner = open_ledger("none"), new_owner()
    assert ledger.ttl is None
    assert ledger.renew(owner, ["one"]) == frozenset()
    assert list(ledger.sweep("a")) == []
    assert list(ledger.holds()) == []
    assert list(ledger.history()) == list(ledger.runs()) == []
    assert ledger.extend("never", 5, available=0, mark=None) == Grant(admitted=True, held_by_others=0)
    ledger.shrink("never", 5)
    ledger.set_lagging("a", lagging=True)
    assert ledger.mark("a") == Mark()
    ledger.publish("a", READING)
    assert ledger.recent("a", max_age=60, claim=1) is True
    ledger.close()


def test_a_forked_child_starts_from_zero() -> None:
    ledger, owner = open_ledger("none"), new_owner()
    ledger.reserve(Hold("one", "a", 1, "job"), owner, available=None, mark=None)
    child = os.fork()
    if child == 0:
        os._exit(0 if ledger.mark("a") == Mark() and not ledger.release("one") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ledger.mark("a") == Mark(started=1)
