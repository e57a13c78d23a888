"""The page as a file: whole, bounded in size, and made of nothing that a name could break."""

from __future__ import annotations

import json
import re
from datetime import timedelta

from past_runs import refusal, report

from creditguard.report import charts, page, picture
from creditguard.report.figures import BalancePoint, collect

HOSTILE = "</script><script>window.hacked=1</script>"


def data(html):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


def test_names_are_data_and_never_markup(past, history):
    named = report(HOSTILE, 40) | {"account": "<b>\"'&", "labels": {"<i>": "\u202e</td>"}}
    past.file(named, report("b\udcff\x1b[31m", 1))
    html = page.make(history(), notice="<made up>")
    assert HOSTILE not in html
    assert "<b>" not in html.partition("<script")[0]
    assert "&lt;made up&gt;" in html
    assert html.count("<script") == 3  # the data, Vega, and the page's own: nothing else is a script
    row = dict(zip(data(html)["fields"], data(html)["runs"][1], strict=True))
    assert (row["job"], row["labels"]) == (HOSTILE, "<i>=\\u202e</td>")
    assert data(html)["runs"][0][1] == "b\\udcff\\x1b[31m"


def test_the_page_may_load_nothing(past, history):
    past.file(report("a", 40))
    html = page.make(history())
    assert "default-src 'none'" in html
    assert not re.search(r"<(?:link|img|iframe)\b|<script[^>]*\bsrc=", html.partition('id="data"')[0])


def test_many_runs_stay_small_and_the_page_says_what_it_left_out(history):
    until = history().until
    many = (
        report(f"job-{n % 12}", n % 97, balance_before=10_000 - n % 5000, balance_after=10_000 - n % 5000 - n % 97)
        | {"finished_at": (until - timedelta(seconds=20_000 - n)).isoformat(), "labels": {"text": "x" * 10_000}}
        for n in range(20_000)
    )
    html = page.make(collect(many, until - timedelta(days=1), until))
    assert len(html.encode()) < 3_000_000
    assert len(data(html)["runs"]) == page.ROWS == 3000
    assert data(html)["counted"].startswith("The latest 3,000 of 20,000 runs")
    assert "from 40,000 readings. The line is drawn from the first, last, least and greatest" in html
    assert "Of 12 jobs the 9 that consumed most" in html
    assert "some stand for all, those over budget first" in html


def test_thinning_keeps_every_peak(history):
    at = history().until
    readings = [BalancePoint(at + timedelta(seconds=n), 100.0) for n in range(10_000)]
    readings[4321] = BalancePoint(readings[4321].at, 1.0)
    readings[8765] = BalancePoint(readings[8765].at, 999.0)
    thin = charts.thinned(readings)
    assert len(thin) <= 800
    assert {1.0, 999.0} <= {reading.balance for reading in thin}
    assert (thin[0], thin[-1]) == (readings[0], readings[-1])


def test_a_chart_tells_bounds_and_unknown_figures_apart(past, history):
    past.file(
        report("a", 40),
        report("a", 20, basis="shared_account_delta"),
        report("a", None, basis="unknown"),
        refusal("a", 7),
    )
    html = page.make(history())
    values = re.findall(r'"kind":"(.*?)"', json.dumps(data(html)["charts"]["job0"]).replace(" ", ""))
    assert values == ["exact", "atmost", "unknown"]
    daily = json.dumps(data(html)["charts"]["daily"])
    assert '"sure": "at most"' in daily
    assert '"not known": "1 of the day\'s runs"' in daily
    assert '"why": "needed 80, short by 73"' in json.dumps(data(html)["charts"]["balance"])


def test_balances_of_one_instant_are_not_added_up(past, history):
    past.file(report("a", 40, duration_s=0.0))
    (area,) = [layer for layer in charts.balance(history()).to_dict()["layer"] if layer["mark"]["type"] == "area"]
    assert area["encoding"]["y"]["stack"] is False


def test_no_run_is_a_page_that_says_so(history):
    html = page.make(history())
    assert "No run ended in this time." in html
    assert data(html)["charts"] == {}


def test_pictures(past, history):
    past.file(report(HOSTILE, 40), report("b", 90), refusal("b", 10))
    png = picture.make(history(), "png")
    assert png.startswith(b"\x89PNG")
    svg = picture.make(history(), "svg").decode()
    assert svg.startswith("<svg")
    assert "<script" not in svg
    assert "var(--" not in svg
    assert "Where the credits went" in svg
    assert picture.make(collect([], history().since, history().until), "png").startswith(b"\x89PNG")
