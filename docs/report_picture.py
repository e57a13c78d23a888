"""Make `docs/report.png`, the picture in docs/report.md: the page of made-up runs, as a browser shows it. `make report-picture`."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import sync_playwright

from creditguard.ledgers.sqlite import SqliteLedger
from creditguard.report import page
from creditguard.report.figures import collect

JOBS = {"nightly-enrich": 180, "translate-catalogue": 240, "posters": 90, "thumbnails": 60, "geo-backfill": 45}
DAYS = 30
PICTURE = Path(__file__).with_name("report.png")


def made_up(chance: random.Random) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Reports of runs that never were, each with how many days ago it ended."""
    balance = 9000
    for number in range(11 * DAYS):
        ago = DAYS * (1 - (number + chance.random()) / (11 * DAYS))
        job = chance.choices(list(JOBS), weights=(5, 2, 3, 4, 2))[0]
        budget = JOBS[job]
        report: dict[str, Any] = {
            "run_id": f"{number:020x}", "job": job, "account": "made-up", "unit": "credits", "budget": budget, "labels": {},
            "balance_before": balance, "headroom": balance, "outcome": "succeeded", "duration_s": chance.uniform(20, 900),
        }  # fmt: skip
        if balance < budget:
            yield ago, report | {"outcome": "refused", "shortfall": budget - balance, "basis": "unknown"}
            balance += 9000
            continue
        used = max(round(budget * chance.gauss(0.78, 0.11)), 1)
        balance -= used
        figure = chance.choices(
            [
                {"credits_consumed": used, "basis": "account_delta", "over_budget": used > budget},
                {"credits_consumed": used + 20, "basis": "shared_account_delta", "over_budget": None},
                {"credits_consumed": None, "basis": "unknown", "over_budget": None},
            ],
            weights=(92, 6, 2),
        )[0]
        outcome = "failed" if chance.random() < 0.03 else "succeeded"
        yield ago, {**report, **figure, "balance_after": balance, "outcome": outcome}


def main() -> None:
    """Make the runs, the page, and the picture of its head."""
    with TemporaryDirectory() as folder:
        ago = 0.0
        ledger = SqliteLedger(f"{folder}/ledger.db", skew=lambda: -86400 * ago)
        for ago, report in made_up(random.Random(4)):  # noqa: B007, S311 - the ledger's clock follows it; no secret
            ledger.settle(report["run_id"], report["account"], report)
        until = datetime.fromtimestamp(time.time(), timezone.utc)
        since = until - timedelta(days=DAYS)
        html = Path(folder, "report.html")
        html.write_text(
            page.make(collect(ledger.runs(since=since), since, until), "Made-up runs, for the documentation"), "utf-8"
        )
        ledger.close()
        with sync_playwright() as playwright:
            chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            view = browser.new_page(viewport={"width": 1000, "height": 1900})
            view.goto(html.as_uri())
            view.wait_for_function("document.querySelectorAll('.chart svg.marks').length >= 7")
            panel = view.locator(".panel").first.bounding_box()
            assert panel is not None  # noqa: S101 - the page has one
            view.screenshot(
                path=PICTURE, clip={"x": 0, "y": 0, "width": 1000, "height": panel["y"] + panel["height"] + 12}
            )
            browser.close()


if __name__ == "__main__":
    main()
