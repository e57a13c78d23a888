"""The colours of the page, light and dark. Charts name them as CSS variables, so that the page's style decides; a picture, which
has no style, gets the light ones in their place.
"""

from __future__ import annotations

from collections.abc import Mapping

JOBS = 7
"""So many jobs have a colour of their own; the rest share one."""

_COLOURS: Mapping[str, tuple[str, str]] = {
    "paper": ("#f7f6f3", "#14161a"),
    "card": ("#ffffff", "#1d2026"),
    "ink": ("#1d2129", "#e9eaed"),
    "muted": ("#5f6672", "#a0a7b4"),
    "line": ("#e4e2dc", "#31353e"),
    "grid": ("#efede8", "#292d35"),
    "accent": ("#2f62c9", "#7fa6ff"),
    "bad": ("#c2342b", "#ff8378"),
    "good": ("#1e7f4c", "#5fd092"),
    "job1": ("#3a6fd8", "#6f9dff"),
    "job2": ("#e2892b", "#f0a657"),
    "job3": ("#1f9b86", "#49c8b0"),
    "job4": ("#a3509f", "#d08fd0"),
    "job5": ("#7d9a2c", "#a9c65c"),
    "job6": ("#c9a227", "#e5ca62"),
    "job7": ("#5a7184", "#8ea7ba"),
    "others": ("#b9bcc2", "#5d636e"),
}

FONT = '-apple-system, "Segoe UI", Inter, Roboto, "Helvetica Neue", Arial, sans-serif'


def colour(name: str) -> str:
    """The colour of that name, for a chart or a style."""
    return f"var(--{name})"


def of_job(place: int) -> str:
    """The name of the colour of the job in that place, from 0 on."""
    return f"job{place + 1}" if place < JOBS else "others"


def variables(*, dark: bool) -> str:
    """The colours as CSS declarations."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in _COLOURS.items())


def fixed(text: str) -> str:
    """The text, with the light colours themselves in place of their names."""
    for name, (light, _) in _COLOURS.items():
        text = text.replace(colour(name), light)
    return text
