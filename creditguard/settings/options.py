"""The options of a guard: what each means, how it is checked, and how it lies over the settings. One list for every face.

A new option is named here (in `GuardOptions` and in `Options`), in `rules.values.Plan`, and where the rules make use of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from creditguard.errors import ConfigurationError
from creditguard.rules.amounts import Amount, to_credits
from creditguard.rules.arguments import (
    parse_budget,
    parse_keep,
    parse_name,
    parse_overrun,
    parse_policy,
    parse_seconds,
    parse_settle,
    parse_switch,
    parse_thresholds,
)
from creditguard.rules.ports import BalanceSource, EventSink, Ledger
from creditguard.rules.secret import GivenSecret, SecretText
from creditguard.rules.values import NO_LABELS, Label, OnOverrun, OnShort, SettleTime
from creditguard.settings import CurrentSettings

if TYPE_CHECKING:
    from typing_extensions import Self


class GuardOptions(TypedDict, total=False):
    """What `guard` takes beside the job's name, as `**options` of whatever makes a guard. Each may be left out; None, too, is left out."""

    budget: Amount | Callable[..., Amount] | None
    on_short: OnShort | None
    on_unreadable: OnShort | None
    keep: Amount | None
    source: str | BalanceSource | None
    ledger: str | Ledger | None
    account: str | None
    settle: float | str | None
    watch: float | None
    thresholds: Iterable[Amount] | None
    on_overrun: OnOverrun | None
    stop_below: Amount | None
    min_interval: float | None
    drift_tolerance: Amount | None
    labels: Mapping[str, Label] | None
    max_age: float | None
    wait: float | None
    shrink: bool | None
    sink: EventSink | None


def hide_password(given: Any) -> None:
    """Put the ledger's URL, which may hold a password, where no traceback shows it. The first line of whatever takes options."""
    if isinstance(given.get("ledger"), str):
        given["ledger"] = GivenSecret(given["ledger"]) if given["ledger"] else None


def _budget(value: Any, name: str) -> Any:
    return value if callable(value) else parse_budget(value, name)


def _labels(value: Any, _: str) -> Mapping[str, Label]:
    return dict(value)


_DEFAULT_THRESHOLDS = (Decimal("0.5"), Decimal("0.8"), Decimal(1))

# Objects of the caller's, and a ledger's URL, are checked by whoever uses them.
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "budget": _budget,
    "on_short": parse_policy,
    "on_unreadable": parse_policy,
    "keep": parse_keep,
    "account": parse_name,
    "settle": parse_settle,
    "watch": parse_seconds,
    "thresholds": parse_thresholds,
    "on_overrun": parse_overrun,
    "stop_below": parse_keep,
    "min_interval": parse_seconds,
    "drift_tolerance": to_credits,
    "labels": _labels,
    "max_age": parse_seconds,
    "wait": parse_seconds,
    "shrink": parse_switch,
}


class Options(NamedTuple):
    """The options that were given, checked. None: left to the settings, or to the default that the rules have."""

    budget: Decimal | Callable[..., Amount] | None = None
    on_short: OnShort | None = None
    on_unreadable: OnShort | None = None
    keep: Decimal | None = None
    source: str | BalanceSource | None = None
    ledger: SecretText | Ledger | None = None
    account: str | None = None
    settle: SettleTime | None = None
    watch: float | None = None
    thresholds: tuple[Decimal, ...] | None = None
    on_overrun: OnOverrun | None = None
    stop_below: Decimal | None = None
    min_interval: float | None = None
    drift_tolerance: Decimal | None = None
    labels: Mapping[str, Label] | None = None
    max_age: float | None = None
    wait: float | None = None
    shrink: bool | None = None
    sink: EventSink | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Check what was given. Raises ConfigurationError, which names the option, and TypeError for a name that is none."""
        unknown = given.keys() - GuardOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"guard() has no option {min(unknown)!r}")
        checked = {
            name: _CHECKS[name](value, name) if name in _CHECKS else value
            for name, value in given.items()
            if value is not None
        }
        options = cls(**checked)
        if options.stop_below is not None and not options.watch:
            raise ConfigurationError("stop_below needs watch=..., the seconds between readings", "stop_below")
        return options

    def over(self, settings: CurrentSettings, *, debits_at_once: bool) -> dict[str, Any]:
        """The fields of a Plan that follow from these options, laid over the settings, and those over what the source says."""
        shrink = next((each for each in (self.shrink, settings.shrink) if each is not None), debits_at_once)
        on_short = self.on_short or settings.on_short
        settle = self.settle or settings.settle
        return {
            "on_short": on_short,
            "on_unreadable": self.on_unreadable or settings.on_unreadable or on_short,
            "keep": settings.keep if self.keep is None else self.keep,
            "settle": settle.seconds,
            "settle_stable": settle.stable,
            "watch": self.watch or 0.0,
            "thresholds": _DEFAULT_THRESHOLDS if self.thresholds is None else self.thresholds,
            "on_overrun": self.on_overrun or "warn",
            "stop_below": self.stop_below,
            "min_interval": settings.min_interval if self.min_interval is None else self.min_interval,
            "drift_tolerance": self.drift_tolerance,
            "max_age": settings.max_age if self.max_age is None else self.max_age,
            "wait": self.wait or 0.0,
            "shrink": shrink,
            "labels": self.labels or NO_LABELS,
        }
