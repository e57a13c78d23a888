"""Where events go: the host program's own log, whichever it is, and never stdout. Each case is a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

JOB = """
with guard("nightly", budget=5, labels={"team": "data"}): print("the job's own output")
try:
    with guard("nightly", budget=500): pass
except InsufficientCredits: pass
"""


def run(script, *more):
    done = subprocess.run([sys.executable, "-c", script + JOB, *more], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the job's own output\n"
    return done.stderr


def test_a_host_that_configured_structlog_gets_events_through_its_own_processors(gateway):
    err = run("""
import structlog, sys
def mine(logger, method, event): return {"mine": True, "method": method, **event}
structlog.configure(processors=[mine, structlog.processors.JSONRenderer()], logger_factory=structlog.PrintLoggerFactory(sys.stderr))
before = structlog.get_config()
from creditguard import guard, InsufficientCredits
import atexit; atexit.register(lambda: structlog.get_config() == before or print("CONFIGURED", file=sys.stderr))
""")
    lines = [json.loads(line) for line in err.splitlines()]
    assert [(line["event"], line["method"], line["mine"]) for line in lines] == [
        ("creditguard.admitted", "info", True),
        ("creditguard.finished", "info", True),
        ("creditguard.refused", "error", True),
    ]
    assert lines[0]["labels"] == {"team": "data"}


def test_a_host_that_did_not_gets_them_through_stdlib_logging(gateway):
    err = run("""
import logging
from creditguard import guard, InsufficientCredits
logging.basicConfig(level=logging.INFO, format="%(name)s|%(levelname)s|%(event)s|%(job)s|%(budget)s|%(message)s")
""")
    lines = [line.split("|", 5) for line in err.splitlines()]
    assert [line[:5] for line in lines] == [
        ["creditguard", "INFO", "creditguard.admitted", "nightly", "5"],
        ["creditguard", "INFO", "creditguard.finished", "nightly", "5"],
        ["creditguard", "ERROR", "creditguard.refused", "nightly", "500"],
    ]
    name, _, fields = lines[2][5].partition(" ")
    assert name == "creditguard.refused"
    assert json.loads(fields)["shortfall"] == 380


def test_a_host_that_configured_nothing_sees_all_events_on_stderr(gateway):
    err = run("from creditguard import guard, InsufficientCredits\n")
    assert [json.loads(line)["event"].removeprefix("creditguard.") for line in err.splitlines()] == [
        "admitted",
        "finished",
        "refused",
    ]


def test_structlog_that_is_imported_but_not_configured_is_left_alone(gateway):
    err = run("""
import structlog
from creditguard import guard, InsufficientCredits
import atexit, sys; atexit.register(lambda: structlog.is_configured() and print("CONFIGURED", file=sys.stderr))
""")
    assert [json.loads(line)["event"].removeprefix("creditguard.") for line in err.splitlines()] == [
        "admitted",
        "finished",
        "refused",
    ]


@pytest.mark.parametrize(
    ("style", "first"), [("none", ""), ("console", "[info   ] "), ("json", '{"event": "creditguard.admitted"')]
)
def test_the_host_says_how_they_look(gateway, monkeypatch, style, first):
    monkeypatch.setenv("CREDITGUARD_LOG_FORMAT", style)
    err = run("from creditguard import guard, InsufficientCredits\n")
    assert first in err
    assert bool(err) == bool(first)


def test_somebody_who_listens_gets_them_alone(gateway):
    err = run("""
import logging
logging.getLogger().addHandler(logging.NullHandler())
from creditguard import guard, InsufficientCredits
""")
    assert err == ""


@pytest.mark.parametrize("broken", ["structlog", "logging"])
def test_a_host_whose_log_set_up_fails_gets_its_result_all_the_same(gateway, broken):
    run(
        """
import structlog, logging
from creditguard import guard, InsufficientCredits
def broken(*_): raise RuntimeError("the host's own")
if BROKEN == "structlog": structlog.configure(processors=[broken])
else: logging.getLogger("creditguard").addFilter(broken); logging.getLogger("creditguard").setLevel("INFO")
""".replace("BROKEN", repr(broken))
    )


def test_structlog_is_configured_nowhere_in_the_package():
    from pathlib import Path

    import creditguard

    for path in Path(creditguard.__file__).parent.rglob("*.py"):
        assert "structlog.configure(" not in path.read_text(), path
