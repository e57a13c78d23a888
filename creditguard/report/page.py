"""The page: one HTML file that asks nobody for anything. Its policy forbids it to load or send whatever it be, and to run any
script but the two that it brings: Vega's, and its own (`page.js`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import vl_convert

from creditguard import __version__
from creditguard.report import charts, summary, theme
from creditguard.report.charts import PANELS
from creditguard.report.figures import History, RunPoint, name_of, suggestion
from creditguard.report.summary import Tile
from creditguard.report.wording import figure, plural

ROWS = 3000
"""So many runs, the latest, stand in the table."""

_HEADS = (
    ("Ended", ""),
    ("Job", ""),
    ("Outcome", "tertiary"),
    ("Budget", "number tertiary"),
    ("Consumed", "number"),
    ("Left", "number secondary"),
    ("Took", "number secondary"),
    ("Run", "secondary"),
)
_WHY = {
    "at most": "at most: other guarded runs were on the account meanwhile",
    "at least": "at least: the balance rose while the job ran",
}


def make(history: History, notice: str | None = None) -> str:
    """The page as HTML. `notice` stands above all else: what the reader must know of the data."""
    content: list[str] = [_header(history, notice)]
    drawn: dict[str, dict[str, Any]] = {}
    if history.runs:
        content += [
            _tiles(history),
            _balance(history, drawn),
            _daily(history, drawn),
            _budgets(history, drawn),
            _runs(history),
        ]
    rows = [_row(run) for run in reversed(history.runs[-ROWS:])]
    content_data = {
        "charts": drawn,
        "fields": list(rows[0]) if rows else [],
        "runs": [list(row.values()) for row in rows],
        "jobs": sorted({run.job for run in history.runs[-ROWS:]}),
        "several": len(history.accounts) > 1,
        "counted": _counted(history),
        "why": _WHY,
    }
    return _document("".join(content), content_data)


def _document(content: str, data: dict[str, Any]) -> str:
    folder = files("creditguard.report")
    style = (
        f":root {{ --font: {theme.FONT}; {theme.variables(dark=False)} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {theme.variables(dark=True)} }} }}\n"
        f"{folder.joinpath('page.css').read_text('utf-8')}"
    )
    scripts = [_library(), folder.joinpath("page.js").read_text("utf-8")]
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="creditguard {__version__}">
<meta name="referrer" content="no-referrer">
<title>creditguard report</title>
<style>
{style}</style>
</head>
<body>
<main>
{content}</main>
<footer>Made by creditguard {__version__}. <noscript>The charts and the table of runs need JavaScript.</noscript></footer>
<script type="application/json" id="data">{_json(data)}</script>
<script>{scripts[0]}</script>
<script>{scripts[1]}</script>
</body>
</html>
"""


def _json(data: object) -> str:
    """As JSON that no HTML parser mistakes for markup, whatever the names of jobs are."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed, in which nothing must end the script element."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _header(history: History, notice: str | None) -> str:
    banner = f'<p class="notice">{escape(notice)}</p>' if notice else ""
    return f"""{banner}<header>
<p class="eyebrow">{escape(summary.period(history))}</p>
<h1>Where the {escape(history.unit)} went</h1>
<p class="lead">{escape(" ".join(summary.sentences(history)))}</p>
</header>
"""


def _tiles(history: History) -> str:
    return f'<dl class="tiles">\n{"".join(map(_tile, summary.tiles(history)))}</dl>\n'


def _tile(tile: Tile) -> str:
    classes = " ".join(["tile", *tile.marks])
    small = f" <small>{escape(tile.unit)}</small>" if tile.unit else ""
    more = f'<dd class="more">{escape(tile.more)}</dd>' if tile.more else ""
    return f'<div class="{classes}"><dt>{escape(tile.name)}</dt><dd class="value">{escape(tile.value)}{small}</dd>{more}</div>\n'


_SHAPES = {
    "dot": '<circle cx="7" cy="7" r="4.5" fill="var(--{0})"/>',
    "square": '<rect x="1" y="1" width="12" height="12" rx="3" fill="var(--{0})"/>',
    "pale": '<rect x="1.5" y="1.5" width="11" height="11" rx="2.5" fill="var(--{0})" fill-opacity=".3" stroke="var(--{0})"/>',
    "up": '<path d="M7 1.5 13 12.5H1Z" fill="var(--{0})"/>',
    "hollow up": '<path d="M7 2.5 12 11.5H2Z" fill="none" stroke="var(--{0})" stroke-width="1.5"/>',
    "hollow down": '<path d="M7 11.5 2 2.5H12Z" fill="none" stroke="var(--{0})" stroke-width="1.5"/>',
    "cross": '<path d="M2.5 2.5 11.5 11.5M11.5 2.5 2.5 11.5" stroke="var(--{0})" stroke-width="3.5"/>',
    "plus": '<path d="M7 2v10M2 7h10" stroke="var(--{0})" stroke-width="1.5"/>',
    "dash": '<path d="M1 7h12" stroke="var(--{0})" stroke-width="1.5"/>',
    "line": '<path d="M0 7h14" stroke="var(--{0})" stroke-width="2" stroke-dasharray="6 3"/>',
    "dotted": '<path d="M0 7h14" stroke="var(--{0})" stroke-width="1.5" stroke-dasharray="2 3"/>',
    "question": '<text x="7" y="12" text-anchor="middle" font-size="13" font-weight="700" fill="var(--{0})">?</text>',
}


def _legend(entries: Iterable[tuple[str, str, str]]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true">{_SHAPES[shape].format(colour)}</svg><span>{escape(text)}</span></li>'
        for shape, colour, text in entries
    )
    return f'<ul class="legend">{items}</ul>'


def _balance(history: History, drawn: dict[str, dict[str, Any]]) -> str:
    shown = [account for account in history.accounts if account.readings]
    if not shown:
        return ""
    ahead = history.burns[shown[0].name] if len(history.accounts) == 1 else None
    drawn["balance"] = charts.specification(charts.balance(history), width="container")
    entries = []
    if len(history.accounts) > 1:
        entries = [
            ("square", theme.of_job(n), account.name) for n, account in enumerate(history.accounts[: theme.JOBS])
        ]
    if any(account.rises for account in history.accounts):
        entries.append(("up", "good", "top-up (or a refund)"))
    if history.outcomes["refused"]:
        entries.append(("cross", "bad", "a run was refused"))
    if ahead is not None and ahead.latest is not None:
        entries.append(("dotted", "accent", "if days go on as they did"))
    readings = sum(len(account.readings) for account in history.accounts)
    notes = [f"In {history.unit}, from {plural(readings, 'reading')}."]
    if any(len(charts.thinned(account.readings)) < len(account.readings) for account in history.accounts):
        notes.append("The line is drawn from the first, last, least and greatest of each stretch of time.")
    if len(history.accounts) > theme.JOBS:
        notes.append(f"Of {len(history.accounts)} accounts the {theme.JOBS} with the most runs are drawn.")
    accounts = _accounts(history) if len(history.accounts) > 1 else ""
    return _section("Balance", " ".join(notes), _legend(entries) + _chart("balance") + accounts)


def _accounts(history: History) -> str:
    rows = "".join(
        f'<tr><td class="job">{escape(name)}</td>'
        + "".join(
            f'<td class="number{narrow}">{escape(text)}</td>'
            for text, narrow in zip(cells, ("", " tertiary", ""), strict=True)
        )
        + "</tr>"
        for name, *cells in summary.accounts(history)
    )
    heads = '<th>Account</th><th class="number">Balance</th><th class="number tertiary">Burn a day</th><th class="number">Days until empty</th>'
    return f'<div class="scroll"><table class="accounts"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _daily(history: History, drawn: dict[str, dict[str, Any]]) -> str:
    drawn["daily"] = charts.specification(charts.daily(history), width="container")
    entries = [("square", theme.of_job(place), name) for place, name in enumerate(charts.job_names(history))]
    sures = {run.sure for run in history.runs}
    if sures & {"at most", "at least"}:
        entries.append(("pale", "muted", "a bound"))
    if sures & {"at least", "unknown"}:
        entries.append(("question", "muted", "more, not known"))
    return _section(
        "Consumption a day", f"In {history.unit}, by the day on which a run ended.", _legend(entries) + _chart("daily")
    )


def _budgets(history: History, drawn: dict[str, dict[str, Any]]) -> str:
    jobs = {job: runs for job, runs in history.by_job().items() if any(run.outcome != "refused" for run in runs)}
    shown = dict(list(jobs.items())[:PANELS])
    suggested = {job: suggestion(job, runs) for job, runs in shown.items()}
    panels = []
    for place, (job, found) in enumerate(suggested.items()):
        name = f"job{place}"
        drawn[name] = charts.specification(charts.budgets(shown[job], found, history.unit), width="container")
        what = "no suggestion" if found.budget is None else f"suggested {figure(float(found.budget))}"
        note = escape(f"{what}: {found.reason}")
        title = f'<h3 title="{escape(job)}">{escape(job)}</h3>'
        panels.append(f'<div class="panel">{title}<p class="note">{note}</p>{_chart(name)}</div>')
    if not panels:
        return ""
    started = history.started
    sures = {run.sure for run in started}
    entries = {
        ("dot", "accent", "what a run consumed"): True,
        ("dot", "bad", "over its budget"): any(run.over for run in started),
        ("hollow down", "accent", "at most that"): "at most" in sures,
        ("hollow up", "accent", "at least that"): "at least" in sures,
        ("plus", "accent", "not known"): "unknown" in sures,
        ("dash", "muted", "its budget"): True,
        ("line", "good", "suggested budget"): any(each.budget is not None for each in suggested.values()),
    }
    notes = [f"In {history.unit}."]
    if len(jobs) > PANELS:
        notes.append(f"Of {len(jobs)} jobs the {PANELS} that consumed most; --job NAME shows another.")
    if any(charts.are_sampled(runs) for runs in shown.values()):
        notes.append("Where a job had more runs than can be told apart, some stand for all, those over budget first.")
    legend = _legend(entry for entry, is_shown in entries.items() if is_shown)
    content = f'{legend}<div class="panels">{"".join(panels)}</div>'
    return _section("Budget against consumption", " ".join(notes), content, classes="long")


def _runs(history: History) -> str:
    latest = history.runs[-ROWS:]
    jobs = "".join(
        f'<option value="{at}">{escape(job)}</option>' for at, job in enumerate(sorted({run.job for run in latest}))
    )
    outcomes = "".join(f"<option>{escape(outcome)}</option>" for outcome in sorted({run.outcome for run in latest}))
    heads = "".join(
        f'<th scope="col" class="{classes}"><button type="button">{name}</button></th>' for name, classes in _HEADS
    )
    return _section(
        "Runs",
        "",
        f"""<div class="filters">
<input id="words" type="search" placeholder="Filter by job, label, run, day" aria-label="Filter runs">
<select id="job" aria-label="Job"><option value="">All jobs</option>{jobs}</select>
<select id="outcome" aria-label="Outcome"><option value="">All outcomes</option><option value="over">over budget</option>{outcomes}</select>
</div>
<div class="scroll"><table id="runs"><thead><tr>{heads}</tr></thead><tbody></tbody></table></div>
<button id="more" type="button" hidden></button>
<p id="counted" class="note" aria-live="polite"></p>""",
        classes="long",
    )


def _counted(history: History) -> str:
    if len(history.runs) > ROWS:
        return f"The latest {ROWS:,} of {len(history.runs):,} runs; the figures and charts above are made from all of them."
    return plural(len(history.runs), "run")


def _row(run: RunPoint) -> dict[str, object]:
    return {
        "when": f"{run.ended:%Y-%m-%dT%H:%M}",
        "job": run.job,
        "outcome": run.outcome,
        "budget": run.budget,
        "consumed": run.consumed,
        "sure": run.sure,
        "over": int(run.over),
        "after": run.after,
        "seconds": None if run.seconds is None else round(run.seconds, 1),
        "account": run.account,
        "labels": name_of(", ".join(f"{name}={value}" for name, value in run.labels.items())) if run.labels else "",
        "id": run.id,
    }


def _section(title: str, note: str, content: str, classes: str = "") -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section class="{classes}"><h2>{escape(title)}</h2>{said}{content}</section>\n'


def _chart(name: str) -> str:
    return f'<div class="chart" id="{name}"></div>'
