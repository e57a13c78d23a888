"""From settings to the parts that runs are made of: sources, ledgers, shared readings. One of each per process and account."""

from __future__ import annotations

import threading
from typing import NamedTuple

from creditguard.engine.leases import Leases
from creditguard.engine.ports import Ports
from creditguard.engine.readings import Readings
from creditguard.errors import ConfigurationError
from creditguard.process import forks
from creditguard.rules.ports import BalanceSource, EventSink, Ledger
from creditguard.rules.secret import SecretText
from creditguard.settings import CurrentSettings


class Wiring(NamedTuple):
    """What a run is performed on, and the names that its events carry."""

    ports: Ports
    account: str
    source: str
    unit: str
    ledger_optional: bool


class Runtime:
    """The shared parts of this process."""

    def __init__(self) -> None:
        self._leases: dict[str, Leases] = {}
        self._sources: dict[tuple[SecretText, str], BalanceSource] = {}
        self._readings: dict[tuple[BalanceSource, Leases, str, float], Readings] = {}
        self._default_failed = False
        self.reset_after_fork()
        forks.register(self)

    def reset_after_fork(self) -> None:
        """The parts look after themselves; only the lock may have been held."""
        self._lock = threading.Lock()

    def wire(
        self,
        settings: CurrentSettings,
        sink: EventSink,
        *,
        source: str | BalanceSource | None,
        ledger: str | Ledger | None,
        account: str | None,
    ) -> Wiring:
        """Put a run's parts together. Arguments beat settings. Raises ConfigurationError for what cannot be used."""
        with self._lock:
            where = self.source(settings, source)
            name = account or settings.account or where.account
            leases, optional = self._ledger(settings, ledger)
            key = (where, leases, name, settings.timeout)
            readings = self._readings.get(key)
            if readings is None:
                readings = self._readings[key] = Readings(where, leases, name, settings.timeout)
        return Wiring(Ports(readings, leases, sink), name, where.name, where.unit, optional)

    def pass_over_default_ledger(self) -> None:
        """The default ledger cannot be used here (no home, a read-only container): do without it from now on."""
        self._default_failed = True

    def source(self, settings: CurrentSettings, source: str | BalanceSource | None = None) -> BalanceSource:
        """The source that is asked for: API Mall, by the settings' key and gateway, or the caller's own."""
        if source is None or source == "apimall":
            return self._apimall(settings)
        if isinstance(source, BalanceSource):
            return source
        raise ConfigurationError("source must be 'apimall' or an object with name, unit, account and read()", "source")

    def _apimall(self, settings: CurrentSettings) -> BalanceSource:
        if settings.api_key is None:
            message = "no API key: set APIMALL_API_KEY, or APIMALL_API_KEY_FILE to a file that holds it"
            raise ConfigurationError(message, "APIMALL_API_KEY")
        key = (settings.api_key, settings.base_url)
        if key not in self._sources:
            from creditguard.sources.apimall import ApiMall

            self._sources[key] = ApiMall(settings.api_key.get_secret_value(), settings.base_url)
        return self._sources[key]

    def _ledger(self, settings: CurrentSettings, ledger: str | Ledger | None) -> tuple[Leases, bool]:
        from creditguard.ledgers import default_url, open_ledger

        if ledger is not None and not isinstance(ledger, str):
            # One renewal thread per ledger object, found again by the object itself.
            for leases in self._leases.values():
                if leases.ledger is ledger:
                    return leases, False
            leases = self._leases[f"object {id(ledger)}"] = Leases(ledger)
            return leases, False
        named = ledger or (settings.ledger.get_secret_value() if settings.ledger else None)
        url = named or ("none" if self._default_failed else default_url())
        if url not in self._leases:
            self._leases[url] = Leases(open_ledger(url))
        return self._leases[url], named is None


runtime: Runtime = Runtime()
