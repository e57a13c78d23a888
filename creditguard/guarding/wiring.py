"""From options and settings to the parts that a run is performed on: source, ledger, shared readings. One of each per process
and account.
"""

from __future__ import annotations

from creditguard.engine.engine import Engine
from creditguard.engine.leases import Leases
from creditguard.engine.performance import Parts
from creditguard.errors import ConfigurationError
from creditguard.rules.amounts import ZERO
from creditguard.rules.ports import BalanceSource
from creditguard.rules.secret import SecretText
from creditguard.rules.values import Plan
from creditguard.settings import CurrentSettings
from creditguard.settings.options import Options
from creditguard.sinks.host import HostSink

_sinks: dict[str | None, HostSink] = {}


def wire(engine: Engine, settings: CurrentSettings, options: Options) -> tuple[Plan, Parts]:
    """What all runs of a guard share: a plan without run, job and budget, and the parts that it is performed on. Options beat
    settings. Raises ConfigurationError for what cannot be used."""
    source = source_for(settings, options.source)
    account = options.account or settings.account or source.account
    leases, optional = _leases(engine, settings, options)
    plan = Plan(
        run_id="",
        job="",
        account=account,
        source=source.name,
        unit=source.unit,
        budget=ZERO,
        ledger_optional=optional,
        **options.over(settings, debits_at_once=getattr(source, "debits_at_once", False)),
    )
    readings = engine.readings_of(source, leases, account, settings.timeout)
    return plan, Parts(readings, leases, options.sink or _sink(settings))


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
    from creditguard.sources.apimall import shared

    return shared(settings.api_key, settings.base_url)


def _leases(engine: Engine, settings: CurrentSettings, options: Options) -> tuple[Leases, bool]:
    from creditguard.ledgers import default_url, open_ledger

    ledger, patience = options.ledger, 2 * settings.timeout
    if ledger is not None and not isinstance(ledger, SecretText):
        return engine.leases_on(id(ledger), lambda: ledger, patience), False
    named = ledger or settings.ledger
    url = named or SecretText("none" if engine.without_default_ledger else default_url())
    return engine.leases_on(url, lambda: open_ledger(url.get_secret_value()), patience), named is None
