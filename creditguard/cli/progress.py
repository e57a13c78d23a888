"""The text of `run --progress`: what is spent of the budget, what is left on the account, the rate, the time until it is empty."""

from __future__ import annotations

from creditguard.guarding.run import Run
from creditguard.rules.text import printable, shortened, width

_CUT = "\u2026"


def row(run: Run, columns: int) -> str:
    """What is known of a run, in so many columns. A long name is cut first, then the figures from the last on."""
    spent = run.spending.spent
    figures = [f"{'?' if spent is None else f'{spent:f}'} of {run.budget:f} spent"]
    if run.balance_now is not None:
        figures.append(f"{run.balance_now:f} left")
    if run.burn_rate:
        figures.append(f"{run.burn_rate:g} a minute")
    if run.time_to_empty is not None:
        minutes, seconds = divmod(round(run.time_to_empty), 60)
        figures.append(
            f"empty in {minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"empty in {minutes}m{seconds:02d}s"
        )
    name = printable(run.job)
    shortest = min(width(name), 12)
    while len(figures) > 1 and shortest + 2 + len(", ".join(figures)) > columns:
        figures.pop()
    text = ", ".join(figures)
    return shortened(f"{shortened(name, max(columns - len(text) - 2, 4), _CUT)}: {text}", columns, _CUT)
