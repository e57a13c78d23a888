"""An image for a chat: the summary, the balance and the consumption, in the light colours."""

from __future__ import annotations

import json
from typing import Literal

import altair as alt
import vl_convert

from creditguard.report import charts, summary, theme
from creditguard.report.figures import History

_WIDTH = 760


def make(history: History, form: Literal["png", "svg"]) -> bytes:
    """The image as a PNG, or as an SVG."""
    parts = [
        charts.balance(history).properties(width=_WIDTH, title=_title("Balance")),
        charts.daily(history, legend=True).properties(
            width=_WIDTH, title=_title(f"Consumption a day, in {history.unit}")
        ),
    ]
    title = alt.TitleParams(
        f"Where the {history.unit} went",
        subtitle=[summary.period(history), *summary.sentences(history)],
        fontSize=22,
        subtitleFontSize=13,
        subtitleLineHeight=19,
        offset=20,
    )
    chart = (
        alt.vconcat(*parts if history.runs else [parts[0]])
        .properties(title=title, spacing=28)
        .resolve_scale(color="independent", stroke="independent")
    )
    spec = json.loads(
        theme.fixed(json.dumps(charts.specification(chart, background=theme.fixed(theme.colour("card")), padding=24)))
    )
    if form == "svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    return vl_convert.vegalite_to_png(spec, scale=2)


def _title(text: str) -> alt.TitleParams:
    return alt.TitleParams(text, frame="group")
