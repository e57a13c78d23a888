"""Ledgers: where holds are kept. `open_ledger` picks one by URL and loads only that one; none touches the world before its
first verb, so whatever is wrong with a ledger shows as LedgerUnavailable from a verb, where the policy for it applies.
"""

from __future__ import annotations

from creditguard.errors import ConfigurationError
from creditguard.ledgers.paths import default_path, default_url
from creditguard.rules.ports import Ledger

__all__ = ["default_path", "default_url", "open_ledger"]

_SETTING = "CREDITGUARD_LEDGER"
_FORMS = "none, sqlite:///PATH (four slashes for an absolute one) or postgresql://..."


def open_ledger(url: str) -> Ledger:
    """The ledger at `none`, `sqlite:///relative`, `sqlite:////absolute`, `sqlite:///~/in-home` or `postgresql://...`.

    Raises ConfigurationError for any other, and for a backend that is not installed. No message repeats the URL, which may
    hold a password.
    """
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if scheme == "none" and not separator:
        from creditguard.ledgers.none import NoLedger

        return NoLedger()
    if scheme == "sqlite" and separator:
        from creditguard.ledgers.sqlite import SqliteLedger

        return SqliteLedger(_path(rest))
    if scheme in {"postgresql", "postgres"} and separator:
        try:
            from creditguard.ledgers.postgres import PostgresLedger
        except ModuleNotFoundError as error:
            if error.name != "psycopg":
                raise
            message = f"{_SETTING} names a PostgreSQL ledger, which needs psycopg: pip install 'creditguard[postgres]'"
            raise ConfigurationError(message, _SETTING) from None
        return PostgresLedger(url.strip())
    # A part without "://" could be anything, a password included.
    given = f", not {scheme[:20]}://..." if separator and scheme.replace("+", "").isalnum() else ""
    raise ConfigurationError(f"{_SETTING} must be {_FORMS}{given}", _SETTING)


def _path(rest: str) -> str:
    if not rest.startswith("/") or rest[1:] in {"", ":memory:"} or "?" in rest or "\0" in rest:
        message = f"{_SETTING} must name a file, as in sqlite:///ledger.db or sqlite:////var/lib/jobs/ledger.db"
        raise ConfigurationError(message, _SETTING)
    return rest[1:]
