"""The page, as somebody opens it: in the system's Chromium. `make test-report` installs what that takes."""

from __future__ import annotations

import re
import shutil

import pytest
from past_runs import refusal, report

from creditguard.report import page

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-report")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = '</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
LONG = "a-job-whose-name-goes-on-and-on-" * 8

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(past, history, browser, tmp_path):
    """Open the page of what was filed; whatever is done with it, it says nothing to the console and asks for nothing."""
    opened_pages, said, asked = [], [], []

    def open_(**options):
        path = tmp_path / "report.html"
        path.write_text(page.make(history()), encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        found = context.new_page()
        found.on("console", lambda message: said.append(message.text))
        found.on("pageerror", lambda error: said.append(str(error)))
        found.on("request", lambda request: asked.append(request.url))
        found.goto(path.as_uri())
        found.wait_for_function(
            "document.querySelectorAll('.chart').length === document.querySelectorAll('.chart svg.marks').length"
        )
        opened_pages.append((context, path.as_uri()))
        return found

    yield open_
    assert said == []
    assert set(asked) == {uri for _, uri in opened_pages}
    for context, _ in opened_pages:
        context.close()


@pytest.fixture
def few(past):
    """A run of each kind."""
    for days_ago in range(6, 0, -1):
        past.file(report("thumbnails", 70 - days_ago, balance_before=900 - 100 * (6 - days_ago)), days_ago=days_ago)
    past.file(report("thumbnails", 95, labels={"team": "data"}))
    past.file(report("posters", 40, basis="shared_account_delta"), report("posters", None, basis="unknown"))
    past.file(
        report("posters", 7, outcome="failed"), refusal("posters", 48), report("thumbnails", 1, balance_after=4000)
    )
    return past


def column(found, place):
    return found.locator(f"#runs tbody td:nth-child({place})").all_inner_texts()


def test_it_opens_in_silence_and_every_chart_has_marks(few, opened):
    found = opened()
    assert found.locator(".chart").count() == 4
    for name in ("balance", "daily", "job0", "job1"):
        assert found.locator(f"#{name} svg .mark-symbol path, #{name} svg .mark-rect path").count() > 0, name
    assert found.locator("dt").all_inner_texts() == [
        "Consumed", "Runs", "Refused", "Over budget", "Balance now", "Burn a day", "Days until empty",
    ]  # fmt: skip


def test_names_are_shown_and_not_obeyed(past, opened):
    past.file(
        *(report(HOSTILE, n, labels={"<b>x": HOSTILE}) | {"account": HOSTILE} for n in range(1, 4)), refusal(HOSTILE, 3)
    )
    found = opened()
    assert HOSTILE in found.locator("h3").inner_text()
    assert HOSTILE in column(found, 2)[0]
    found.locator("#daily svg .mark-rect path").last.hover(force=True)
    found.wait_for_selector("#vg-tooltip-element.visible")
    assert "onerror" in found.locator("#vg-tooltip-element").inner_text()
    assert found.locator("img").count() == 0
    assert found.evaluate("window.hacked") is None


def test_a_tooltip_says_what_a_mark_is(few, opened):
    found = opened()
    tooltip = found.locator("#vg-tooltip-element")
    found.locator("#balance svg .mark-symbol path").last.hover(force=True)
    tooltip.wait_for()
    assert "needed 80, short by 32" in tooltip.inner_text()
    dot = found.locator(
        "#job1 svg .mark-symbol path[stroke='var(--bad)'], #job0 svg .mark-symbol path[stroke='var(--bad)']"
    )
    dot.first.hover(force=True)
    found.wait_for_function("document.getElementById('vg-tooltip-element').textContent.includes('95 credits')")


def test_the_table_is_filtered(few, opened):
    found = opened()
    assert len(column(found, 2)) == 12
    found.locator("#words").fill("TEAM=data")
    assert [text.split("\n")[0] for text in column(found, 2)] == ["thumbnails"]
    assert found.locator("#counted").inner_text() == "1 of 12 runs"
    found.locator("#words").fill("")
    found.locator("#job").select_option(label="posters")
    assert set(column(found, 2)) == {"posters"}
    found.locator("#outcome").select_option(label="refused")
    assert column(found, 3) == ["refused"]
    found.locator("#job").select_option(label="All jobs")
    found.locator("#outcome").select_option(label="over budget")
    assert column(found, 5) == ["95"]


def test_the_table_is_sorted_and_what_is_not_known_comes_last(few, opened):
    found = opened()
    head = found.locator("#runs th", has_text="Consumed")
    for way in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == way
        shown = column(found, 5)
        assert set(shown[-2:]) == {"not known", "refused"}
        amounts = [int(text.removeprefix("≤ ")) for text in shown[:-2]]
        assert amounts == sorted(amounts, reverse=way == "descending")
    found.locator("#runs th", has_text="Job").locator("button").click()
    assert column(found, 2)[0] == "posters"


def test_more_rows_are_shown_on_demand(past, opened):
    past.file(*(report("many", n) for n in range(30)))
    found = opened()
    assert len(column(found, 1)) == 20
    assert found.locator("#counted").inner_text() == "20 are shown. 30 runs"
    found.locator("#more").click()
    assert len(column(found, 1)) == 30
    assert found.locator("#more").is_hidden()


def test_bounds_and_unknown_figures_look_different(few, opened):
    found = opened()
    exact = found.locator("#runs td.number span", has_text=re.compile("^95$"))
    bound = found.locator("#runs .bound")
    assert bound.inner_text() == "≤ 40"
    assert bound.get_attribute("title") == "at most: other guarded runs were on the account meanwhile"
    style = "each => getComputedStyle(each).fontStyle"
    assert (exact.evaluate(style), bound.evaluate(style)) == ("normal", "italic")
    assert found.locator(".tile.inexact .value").first.inner_text().startswith("≥ ")
    assert found.locator("#daily svg .mark-rect path[fill-opacity='0.3']").count() == 1
    fills = found.locator("#job1 svg .mark-symbol path, #job0 svg .mark-symbol path").evaluate_all(
        "paths => paths.map(each => [/kind: (at most|unknown)/.test(each.ariaLabel), each.getAttribute('fill-opacity')])"
    )
    assert {opacity for open_, opacity in fills if open_} == {"0"}
    assert found.locator("#daily svg .mark-text text", has_text="?").count() >= 1


def test_dark_and_print(few, opened):
    found = opened(color_scheme="light")
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('#balance .mark-line path')).stroke]"
    light = found.evaluate(colours)
    found.emulate_media(color_scheme="dark")
    dark = found.evaluate(colours)
    assert light[0] == "rgb(247, 246, 243)"
    assert dark[0] == "rgb(20, 22, 26)"
    assert light[1] != dark[1]
    found.emulate_media(color_scheme="dark", media="print")
    assert found.evaluate(colours)[1] == light[1]
    assert found.locator(".filters").is_hidden()


@pytest.mark.parametrize("width", [320, 390, 800])
def test_narrow_screens_need_no_sideways_scrolling(few, opened, width):
    few.file(report(LONG, 12345678.123456, budget=98765432, labels={"l" * 99: "v" * 99}) | {"account": LONG})
    found = opened(viewport={"width": width, "height": 800})
    assert found.evaluate("document.documentElement.scrollWidth") <= width
    for each in found.locator("section, .tile, .chart svg.marks").all():
        box = each.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
