"""The charts, made with Altair from the figures: specifications in Vega-Lite, small however many runs there were.

Names of jobs are data in them, never a part of an expression. Times are written without a zone: whoever opens the page sees the
clock of the machine that made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any, TypeAlias

import altair as alt

from creditguard.report.figures import AccountLine, BalancePoint, Burn, History, RunPoint
from creditguard.report.theme import FONT, JOBS, colour, of_job
from creditguard.report.wording import credits_of, figure, moment
from creditguard.rules.history import Suggestion

Chart: TypeAlias = "alt.LayerChart | alt.FacetChart | alt.VConcatChart"
Row: TypeAlias = "dict[str, Any]"

PANELS = 9
"""So many jobs get a chart of budget against consumed."""
_STRETCHES = 200
"""A balance line is drawn from the first, least, greatest and last reading of so many stretches of time."""
_MARKS = 150
_DOTS = 300
_WEEK = 7
OTHERS = "other jobs"


def balance(history: History) -> Chart:
    """The balance of each account over time, its rises and the refusals marked; and, of a single one, where it leads."""
    accounts = history.accounts[:JOBS]
    names = [account.name for account in accounts]
    lines = [
        {"at": _at(reading.at), "balance": reading.balance, "account": account.name}
        for account in accounts
        for reading in thinned(account.readings)
    ]
    x = _time(history.runs)
    y = alt.Y("balance:Q", title=None)
    colours = ["accent"] if len(names) == 1 else [of_job(place) for place in range(JOBS)]
    scale = alt.Scale(domain=names, range=[colour(name) for name in colours])
    drawn = alt.Chart(_data(lines)).encode(
        x=x,
        y=y,
        color=alt.Color("account:N", scale=scale, legend=None),
        tooltip=[
            alt.Tooltip("account:N"),
            alt.Tooltip("at:T", format="%-d %b, %H:%M"),
            alt.Tooltip("balance:Q", format=","),
        ],
    )
    layers = [drawn.mark_line(strokeWidth=2, strokeJoin="round")]
    if len(names) == 1:
        layers.insert(0, drawn.encode(y=alt.Y("balance:Q", stack=False, title=None)).mark_area(opacity=0.12))
        ahead = history.burns[names[0]]
        if ahead is not None and accounts[0].last is not None:
            layers += _ahead(accounts[0].last, ahead, x, y)
    marks = [
        alt.Chart(_data(_rises(accounts)))
        .mark_point(shape="triangle-up", size=90, filled=True, color=colour("good"), opacity=1)
        .encode(x=x, y=y, tooltip=_texts("top-up", "account", "when")),
        alt.Chart(_data(_refusals(history)))
        .mark_point(shape="cross", size=110, angle=45, filled=True, color=colour("bad"), opacity=1)
        .encode(x=x, y=y, tooltip=_texts("refused", "why", "account", "when")),
    ]
    return _layered(*layers, *marks).properties(height=260)


def _ahead(last: BalancePoint, burn: Burn, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    if burn.until_empty is None or burn.soonest is None or burn.latest is None:
        return []
    until = min(burn.latest, burn.days * 0.4)
    steps = sorted({until * step / 20 for step in range(21)} | {burn.soonest, burn.until_empty})
    rows = [
        {
            "at": _at(last.at + timedelta(days=step)),
            "balance": last.balance * (1 - step / burn.until_empty) if step <= burn.until_empty else None,
            "low": last.balance * max(1 - step / burn.soonest, 0.0),
            "high": last.balance * max(1 - step / burn.latest, 0.0),
        }
        for step in steps
        if step <= until
    ]
    base = alt.Chart(_data(rows))
    return [
        base.mark_area(color=colour("accent"), opacity=0.1).encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q"),
        base.mark_line(color=colour("accent"), strokeDash=[2, 4], strokeWidth=1.5).encode(x=x, y=y),
    ]


def _rises(accounts: Sequence[AccountLine]) -> list[Row]:
    return [
        {
            "at": _at(rise.at),
            "balance": rise.to,
            "top-up": f"+{figure(rise.by)} (or a refund)",
            "account": account.name,
            "when": moment(rise.at),
        }
        for account in accounts
        for rise in sorted(account.rises, key=lambda rise: -rise.by)[:_MARKS]
    ]


def _refusals(history: History) -> list[Row]:
    refused = [run for run in history.runs if run.outcome == "refused" and run.before is not None]
    if len(refused) <= _MARKS:
        groups = [[run] for run in refused]
    else:
        by_day: dict[tuple[date, str], list[RunPoint]] = {}
        for run in refused:
            by_day.setdefault((run.ended.date(), run.account), []).append(run)
        groups = list(by_day.values())
    return [
        {
            "at": _at(group[-1].ended),
            "balance": group[-1].before,
            "refused": group[-1].job if len(group) == 1 else f"{len(group)} runs, the last of {group[-1].job}",
            "why": f"needed {figure(group[-1].budget)}, short by {figure(group[-1].shortfall)}",
            "account": group[-1].account,
            "when": moment(group[-1].ended),
        }
        for group in groups
    ]


def thinned(readings: Sequence[BalancePoint]) -> list[BalancePoint]:
    """Readings that draw the same line as all of them, at the width of a screen."""
    if len(readings) <= 4 * _STRETCHES:
        return list(readings)
    first, span = readings[0].at, (readings[-1].at - readings[0].at) / _STRETCHES
    stretches: dict[int, list[BalancePoint]] = {}
    for reading in readings:
        stretches.setdefault(int((reading.at - first) / span), []).append(reading)
    kept: list[BalancePoint] = []
    for stretch in stretches.values():
        ordered = sorted(stretch, key=lambda reading: reading.balance)
        kept += sorted({stretch[0], ordered[0], ordered[-1], stretch[-1]})
    return kept


def job_names(history: History) -> list[str]:
    """The jobs that consumed: those that have a colour of their own, and, if there are more, the name for the rest."""
    names = [job for job, runs in history.by_job().items() if any(run.consumed for run in runs)]
    return names if len(names) <= JOBS else [*names[:JOBS], OTHERS]


def daily(history: History, *, legend: bool = False) -> Chart:
    """What was consumed each day, by job; bounds are pale, and a question mark stands over a day with unknown figures."""
    names = job_names(history)
    sums: dict[tuple[date, str, str], list[float]] = {}
    unknown: dict[date, int] = {}
    for run in history.runs:
        day = run.ended.date()
        if run.sure in {"unknown", "at least"}:
            unknown[day] = unknown.get(day, 0) + 1
        if run.consumed:
            job = run.job if run.job in names else OTHERS
            sums.setdefault((day, job, run.sure), []).append(run.consumed)
    rows: list[Row] = [
        {
            "day": _day(day),
            "job": job,
            "place": 2 * names.index(job) + (sure != "exact"),
            "credits": round(sum(amounts), 6),
            "sure": sure,
            "filled": 1 if sure == "exact" else 0.3,
            "consumed": credits_of(round(sum(amounts), 6), sure, history.unit),
            "runs": len(amounts),
        }
        for (day, job, sure), amounts in sorted(sums.items())
    ]
    totals: dict[str, float] = {}
    for row in rows:
        totals[row["day"]] = totals.get(row["day"], 0.0) + row["credits"]
    axis = alt.Axis(format="%-d %b", grid=False, labelAngle=0)
    x = alt.X("day:O", timeUnit="yearmonthdate", title=None, axis=axis)
    # Days without a run have their place, too.
    days = alt.Chart(_data([{"day": _day(day)} for day in _days(history)])).mark_point(opacity=0).encode(x=x)
    scale = alt.Scale(domain=names, range=[colour(of_job(place)) for place in range(len(names))])
    shown = alt.Legend(orient="top", title=None, labelLimit=180, symbolType="circle", columns=5) if legend else None
    bars = (
        alt.Chart(_data(rows))
        .mark_bar(width=alt.RelativeBandSize(band=0.7), strokeWidth=1)
        .encode(
            x=x,
            y=alt.Y("credits:Q", stack="zero", title=None),
            color=alt.Color("job:N", scale=scale, legend=shown),
            stroke=alt.Stroke("job:N", scale=scale, legend=None),
            fillOpacity=alt.FillOpacity("filled:Q", scale=None, legend=None),
            order=alt.Order("place:Q"),
            tooltip=[alt.Tooltip("job:N"), alt.Tooltip("day:T", format="%a %-d %b"), *_texts("consumed", "runs")],
        )
    )
    marks = [
        {"day": _day(day), "total": totals.get(_day(day), 0.0), "mark": "?", "not known": f"{count} of the day's runs"}
        for day, count in sorted(unknown.items())
    ]
    questions = (
        alt.Chart(_data(marks))
        .mark_text(dy=-9, fontSize=13, fontWeight="bold", color=colour("muted"))
        .encode(x=x, y="total:Q", text="mark:N", tooltip=_texts("not known"))
    )
    return _layered(days, bars, questions).properties(height=240)


def _days(history: History) -> Iterable[date]:
    """All days from the first run on, and a week at least."""
    last = history.until.date()
    first = min((run.ended.date() for run in history.runs), default=last)
    span = max((last - first).days + 1, _WEEK)
    return (last - timedelta(days=n) for n in range(span))


def budgets(runs: Sequence[RunPoint], suggested: Suggestion, unit: str) -> Chart:
    """What each run of one job consumed, a dot, beside its budget, a dash; and the budget that they suggest, a line."""
    shown = sampled(runs)
    rows = [
        {
            "at": _at(run.ended),
            "credits": run.consumed if run.consumed is not None else 0,
            "kind": run.sure,
            "filled": 0.75 if run.sure == "exact" else 0,
            "over": "over" if run.over else "within",
            "consumed": credits_of(run.consumed, run.sure, unit),
            "budget": figure(run.budget),
            "allowed": run.budget,
            "outcome": run.outcome,
            "when": moment(run.ended),
        }
        for run in shown
    ]
    base = alt.Chart(_data(rows)).encode(
        x=_time(runs, grid=False, tickCount=4),
        tooltip=_texts("consumed", "budget", "outcome", "when"),
    )
    kinds = ["exact", "at most", "at least", "unknown"]
    shapes = alt.Scale(domain=kinds, range=["circle", "triangle-down", "triangle-up", "cross"])
    colours = alt.Scale(domain=["within", "over"], range=[colour("accent"), colour("bad")])
    layers: list[alt.Chart] = [
        base.mark_point(shape="stroke", size=70, strokeWidth=1.5, color=colour("muted"), opacity=0.9).encode(
            y=alt.Y("allowed:Q", title=None)
        ),
        base.mark_point(size=38, strokeWidth=1.4, filled=False).encode(
            y=alt.Y("credits:Q", title=None),
            shape=alt.Shape("kind:N", scale=shapes, legend=None),
            stroke=alt.Stroke("over:N", scale=colours, legend=None),
            fill=alt.Fill("over:N", scale=colours, legend=None),
            fillOpacity=alt.FillOpacity("filled:Q", scale=None, legend=None),
        ),
    ]
    if suggested.budget is not None:
        line = [
            {"credits": float(suggested.budget), "suggested": figure(float(suggested.budget)), "why": suggested.reason}
        ]
        layers.insert(
            0,
            alt.Chart(_data(line))
            .mark_rule(color=colour("good"), strokeWidth=2, strokeDash=[6, 3])
            .encode(y="credits:Q", tooltip=_texts("suggested", "why")),
        )
    return _layered(*layers).properties(height=150)


def sampled(runs: Sequence[RunPoint]) -> Sequence[RunPoint]:
    """Of those that started so many that each can be seen: those over budget first, and of the others each so manieth."""
    started = [run for run in runs if run.outcome != "refused"]
    if len(started) <= _DOTS:
        return started
    over = [run for run in started if run.over][-_DOTS // 2 :]
    others = [run for run in started if not run.over]
    step = max(len(others) / (_DOTS - len(over)), 1)
    return sorted([*over, *(others[int(n * step)] for n in range(int(len(others) / step)))], key=lambda run: run.ended)


def are_sampled(runs: Sequence[RunPoint]) -> bool:
    """Whether some of these runs stand for all."""
    return sum(run.outcome != "refused" for run in runs) > _DOTS


def specification(chart: Chart, **more: Any) -> dict[str, Any]:
    """The chart as a Vega-Lite specification, as wide as there is room, in the theme's colours."""
    axis = {
        "domain": False,
        "ticks": False,
        "labelColor": colour("muted"),
        "gridColor": colour("grid"),
        "labelFontSize": 11,
        "labelPadding": 6,
        "labelOverlap": True,
        "tickCount": 5,
        "labelFlush": False,
    }
    config = {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {"labelColor": colour("ink"), "labelFontSize": 12},
        "title": {"color": colour("ink"), "subtitleColor": colour("muted"), "anchor": "start", "offset": 12},
    }
    found = dict(chart.to_dict(validate=False))
    return {**found, "config": config, "autosize": {"type": "fit-x", "contains": "padding"}, **more}


def _time(runs: Sequence[RunPoint], **axis: Any) -> alt.X:
    """The axis of time, in days, or in what is fit for less."""
    span = runs[-1].ended - runs[0].ended if runs else timedelta(0)
    form = "%H:%M:%S" if span < timedelta(minutes=5) else "%H:%M" if span < timedelta(days=2) else "%-d %b"
    return alt.X("at:T", title=None, axis=alt.Axis(format=form, **axis))


def _layered(*layers: alt.Chart) -> Chart:
    """The layers over each other, without those that have nothing to show: Vega warns of them."""
    shown = [layer for layer in layers if layer.data["values"]]
    return alt.layer(*(shown or layers[:1]))


def _data(rows: Sequence[Row]) -> Row:
    return {"values": rows}  # not as InlineData, which looks at each value over and over


def _texts(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:N") for name in names]


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}"


def _day(day: date) -> str:
    return f"{day:%Y-%m-%dT00:00:00}"
