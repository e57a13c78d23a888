"""What the tests of the page share: a history of real reports, filed with a real ledger."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from past_runs import Past

from creditguard.ledgers import open_ledger
from creditguard.report.figures import collect


@pytest.fixture
def past(tmp_path):
    return Past(f"sqlite:///{tmp_path}/past.db")


@pytest.fixture
def history(past):
    """The history of what was filed so far."""

    def read(days=30):
        until = datetime.now(timezone.utc).astimezone()
        since = until - timedelta(days=days)
        ledger = open_ledger(past.url)
        found = collect(ledger.runs(since=since), since, until)
        ledger.close()
        return found

    return read
