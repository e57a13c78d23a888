"""From options and settings to the parts that a run is performed on: source, ledger, shared readings. One of each per process
and account.
"""

from __future__ import annotations

from typing import NamedTuple

from creditguard.engine.engine import Engine
from creditguard.engine.leases import Leases
from creditguard.engine.performance import Parts
from creditguard.errors import ConfigurationError
from creditguard.rules.ports import BalanceSource
from creditguard.rules.secret import SecretText
from creditguard.settings import CurrentSettings
from creditguard.settings.options import Options
from creditguard.sinks.host import HostSink

_sinks: dict[str | None, HostSink] = {}
_sources: dict[tuple[SecretText, str], BalanceSource] = {}


class Wiring(NamedTuple):
    """What a run is performed on, and the names that its events carry."""

    parts: Parts
    account: str
    source: str
    unit: str
    ledger_optional: bool


def wire(engine: Engine, settings: CurrentSettings, options: Options) -> Wiring:
    """Put a run's parts together. Options beat settings. Raises ConfigurationError for what cannot be used."""
    source = source_for(settings, options.source)
    account = options.account or settings.account or source.account
    leases, optional = _leases(engine, settings, options)
    readings = engine.readings_of(source, leases, account, settings.timeout)
    return Wiring(Parts(readings, leases, options.sink or _sink(settings)), account, source.name, source.unit, optional)


def _sink(settings: CurrentSettings) -> HostSink:
    style = settings.log_format
    return _sinks.get(style) or _sinks.setdefault(style, HostSink(style))


def source_for(settings: CurrentSettings, source: str | BalanceSource | None = None) -> BalanceSource:
    """The source that is asked for: API Mall, by the settings' key and gateway, or the caller's own."""
    if source is None or source == "apimall":
        return _apimall(settings)
    if isinstance(source, BalanceSource):
        return source
    raise ConfigurationError("source must be 'apimall' or an object with name, unit, account and read()", "source")


def _apimall(settings: CurrentSettings) -> BalanceSource:
    if settings.api_key is None:
        message = (
            "no API key: set APIMALL_API_KEY, or APIMALL_API_KEY_FILE to a file that holds it; "
            "to try it without one: creditguard sandbox -- COMMAND"
        )
        raise ConfigurationError(message, "APIMALL_API_KEY")
    key = settings.api_key, settings.base_url
    found = _sources.get(key)
    if found is None:
        from creditguard.sources.apimall import ApiMall

        found = _sources.setdefault(key, ApiMall(settings.api_key.get_secret_value(), settings.base_url))
    return found


def _leases(engine: Engine, settings: CurrentSettings, options: Options) -> tuple[Leases, bool]:
    from creditguard.ledgers import default_url, open_ledger

    ledger, patience = options.ledger, 2 * settings.timeout
    if ledger is not None and not isinstance(ledger, str):
        return engine.leases_on(_Same(ledger), lambda: ledger, patience), False
    named = SecretText(ledger) if ledger else settings.ledger  # it may hold a password
    url = named or SecretText("none" if engine.without_default_ledger else default_url())
    return engine.leases_on(url, lambda: open_ledger(url.get_secret_value()), patience), named is None


class _Same:
    """An object as a key, by its identity, whatever it says of equality."""

    def __init__(self, it: object) -> None:
        self._it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._it is other._it

    def __hash__(self) -> int:
        return id(self._it)
