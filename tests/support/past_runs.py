"""Past runs, filed with a real ledger; and commands run on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from itertools import count

from creditguard.ledgers import open_ledger
from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.rules.report import Report

_numbers = count()


def report(job, consumed, *, budget=80, basis="account_delta", outcome="succeeded", **more):
    """A report as a run files it."""
    sure = basis in {"recorded", "account_delta"}
    return {
        **dict.fromkeys(Report.__slots__), "run_id": f"{next(_numbers):020x}", "job": job, "account": "ours", "source": "apimall",
        "unit": "credits", "budget": budget, "keep": 0, "labels": {}, "balance_before": 500, "held_by_others": 0, "headroom": 500,
        "shortfall": 0, "balance_after": None if consumed is None else 500 - consumed, "credits_consumed": consumed, "basis": basis,
        "over_budget": consumed is not None and consumed > budget if sure else None, "settled": True, "outcome": outcome,
        "duration_s": 61.25, **more,
    }  # fmt: skip


def refusal(job, headroom, *, budget=80):
    """The report of a run that was refused."""
    return report(
        job, None, budget=budget, basis="unknown", outcome="refused", headroom=headroom, shortfall=budget - headroom
    )


class Past:
    """A ledger to which past runs are added."""

    def __init__(self, url):
        self.url = url

    def file(self, *reports, days_ago=0):
        """File the reports; those of other days with a SQLite ledger only, whose clock can be set back."""
        ledger = open_ledger(self.url)
        if days_ago:
            ledger = SqliteLedger(self.url.removeprefix("sqlite:///"), skew=lambda: -86400.0 * days_ago)
        for each in reports:
            ledger.settle(each["run_id"], each["account"], each)
        ledger.close()


def on_a_terminal(*arguments, columns=80, env=None):
    """What the command wrote to a terminal of so many columns, and its exit code."""
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", **(env or {})}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "creditguard", *map(str, arguments)]
        os.execve(command[0], command, environment)
    shown = b""
    try:
        while chunk := os.read(fd, 65536):
            shown += chunk
    except OSError:
        pass  # Linux says EIO when the last process has let go of it
    os.close(fd)
    return shown.decode().replace("\r\n", "\n"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def without_colour(text):
    """The text, without the escapes that colour it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
