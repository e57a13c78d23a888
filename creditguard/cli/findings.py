"""What `creditguard doctor` looks at, and what it finds: the gateway, the key, the balance, the ledger, the clock. Each finding comes
with what to do about it, and with the exit code that `creditguard check` would end with for it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Literal, NamedTuple, TypeAlias

from creditguard.cli import exits
from creditguard.cli.wording import worded
from creditguard.errors import (
    AuthenticationError,
    BalanceUnavailable,
    ConfigurationError,
    LedgerError,
    RateLimited,
    UnexpectedResponse,
)
from creditguard.guarding.wiring import source_for
from creditguard.ledgers import default_url, open_ledger
from creditguard.process.identity import clock, is_dead
from creditguard.rules.amounts import from_micro
from creditguard.rules.ports import Ledger
from creditguard.rules.sentences import duration
from creditguard.rules.values import LiveHold
from creditguard.settings import CurrentSettings

State: TypeAlias = Literal["ok", "warning", "wrong", "unknown"]

_SKEW = 60.0
"""Seconds that the clock of this machine may be off before that is worth a word: it only dates what people read."""
_FIRST_RELEASE = datetime(2026, 1, 1, tzinfo=timezone.utc)
_MOST = 1000


class Finding(NamedTuple):
    """What was found of one thing, and what to do about it."""

    check: str
    state: State
    found: str
    to_do: str = ""
    code: int = exits.OK


def of_settings(error: ConfigurationError, options: argparse.Namespace) -> list[Finding]:
    """The settings cannot be used, so nothing else can be looked at."""
    rest = ("gateway", "key", "balance", "ledger")
    wrong = Finding("settings", "wrong", worded(error, options), f"correct {error.setting}", exits.CONFIGURATION)
    return [wrong, *(Finding(check, "unknown", "not looked at: the settings come first") for check in rest)]


def of_gateway(settings: CurrentSettings) -> tuple[Finding, float | None]:
    """Whether anything answers there, without the key; and how many seconds this machine's clock is ahead of its."""
    from creditguard.sources.outcomes import Failure
    from creditguard.sources.transport import get

    began = time.monotonic()
    answer = get(f"{settings.base_url}/", dict, settings.timeout)
    took = duration(time.monotonic() - began)
    if isinstance(answer, Failure):
        to_do = "look at CREDITGUARD_BASE_URL, the network, and a proxy if there is one; it may pass by itself"
        code = exits.NOT_UNDERSTOOD if answer.kind == "garbled" else exits.UNREACHABLE
        return Finding("gateway", "wrong", f"{settings.base_url} cannot be reached: {answer.why}", to_do, code), None
    return Finding("gateway", "ok", f"{settings.base_url} answered in {took}"), _skew(answer.headers.get("date", ""))


def _skew(date: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def of_key_and_balance(settings: CurrentSettings, options: argparse.Namespace, *, reachable: bool) -> list[Finding]:
    """Whether the key is accepted, and what the account has."""
    not_told = Finding("key", "unknown", "nobody tells whether it is accepted")
    not_read = Finding("balance", "unknown", "not read")
    try:
        source = source_for(settings)
        if not reachable:
            return [not_told, not_read]
        balance = source.read(settings.timeout)
    except ConfigurationError as error:
        found, _, to_do = worded(error, options).partition(": ")
        return [Finding("key", "wrong", found, to_do, exits.CONFIGURATION), not_read]
    except AuthenticationError as error:
        to_do = "look whether APIMALL_API_KEY is whole and still valid"
        if error.status == 403:
            to_do = "ask for API access for this account, and look whether CREDITGUARD_BASE_URL is the gateway"
        return [Finding("key", "wrong", str(error), to_do, exits.KEY_REJECTED), not_read]
    except BalanceUnavailable as error:
        to_do = "try again later"
        if isinstance(error, RateLimited) and error.retry_after:
            to_do = f"try again in {duration(error.retry_after)}"
        elif isinstance(error, UnexpectedResponse):
            to_do = "look whether CREDITGUARD_BASE_URL is the gateway, and not a proxy or a sign-in page before it"
        return [not_told, Finding("balance", "wrong", str(error), to_do, exits.code_for(error))]
    request = f" (request {balance.request_id})" if balance.request_id else ""
    found = f"{balance.amount:f} {balance.unit}{request}"
    return [Finding("key", "ok", "accepted"), Finding("balance", "ok", found)]


def of_ledger(settings: CurrentSettings, options: argparse.Namespace) -> tuple[list[Finding], list[LiveHold]]:
    """Whether the ledger is there, of which version, and can be written; and the holds on it."""
    named = settings.ledger
    try:
        ledger = open_ledger(named.get_secret_value() if named else default_url())
    except ConfigurationError as error:
        return [
            Finding("ledger", "wrong", worded(error, options), "correct CREDITGUARD_LEDGER", exits.CONFIGURATION)
        ], []
    if ledger.name == "none":
        to_do = "name one in CREDITGUARD_LEDGER if several jobs draw on the account"
        return [Finding("ledger", "warning", "none: jobs do not see each other, and nothing is remembered", to_do)], []
    of_holds: list[Finding] = []
    holds: list[LiveHold] = []
    try:
        holds += ledger.holds(limit=_MOST)
        of_holds.append(_of_holds(holds))
        return [_of_usable(ledger), *of_holds], holds
    except LedgerError as error:
        to_do = "see to it that it can be used by this user, or name another in CREDITGUARD_LEDGER"
        wrong = Finding("ledger", "wrong", str(error), to_do, exits.code_for(error))
        if not named:
            found = f"{error}; it is the default, which runs do without"
            wrong = wrong._replace(state="warning", found=found, code=exits.OK)
        return [wrong, *of_holds], holds
    finally:
        ledger.close()


def _of_usable(ledger: Ledger) -> Finding:
    version: Callable[[], int] | None = getattr(ledger, "version", None)
    of_version = f", version {version()}" if version else ""
    ledger.release(f"doctor-{os.urandom(8).hex()}")  # releases nothing, but is written down; for an hour
    place = f"{ledger.name} ({repr(ledger).partition('(')[2]}"
    return Finding("ledger", "ok", f"{place}{of_version}, can be written")


def _of_holds(holds: list[LiveHold]) -> Finding:
    if not holds:
        return Finding("holds", "ok", "nothing is held")
    amount = from_micro(sum(live.hold.amount for live in holds))
    found = f"{len(holds)} {'run holds' if len(holds) == 1 else 'runs hold'} {amount:f} credits"
    dead = [live.hold.id for live in holds if is_dead(live.owner)]
    if not dead:
        return Finding("holds", "ok", found)
    to_do = f"nothing: the next run on the account frees it; or creditguard holds release {dead[0]}"
    return Finding("holds", "warning", f"{found}; the process of {len(dead)} of them is dead", to_do)


def of_clock(skew: float | None) -> Finding:
    """Whether this machine's clock is right, as far as that can be seen, and can be compared with that of other processes."""
    now = datetime.now(timezone.utc)
    set_it = "set the clock of this machine (NTP): it dates reports and history; no hold depends on it"
    if now < _FIRST_RELEASE:
        return Finding("clock", "warning", f"it says {now:%Y-%m-%d}, which has long passed", set_it)
    if skew is not None and abs(skew) > _SKEW:
        side = "ahead of" if skew > 0 else "behind"
        return Finding("clock", "warning", f"it is {duration(abs(skew))} {side} the gateway's", set_it)
    if not clock().name:
        to_do = (
            "run without what fakes the clock (libfaketime): until then only the dead lose their holds to this process"
        )
        return Finding(
            "clock",
            "warning",
            "the time that has passed cannot be told: this process's clock is not the kernel's",
            to_do,
        )
    return Finding("clock", "ok", "it agrees with the gateway's" if skew is not None else "nothing speaks against it")


def code_of(findings: list[Finding]) -> int:
    """What `check` would end with: a setting first, then the ledger, which it asks before the balance."""
    wrong = [finding for finding in findings if finding.code]
    first = min(wrong, key=lambda each: (each.code != exits.CONFIGURATION, each.check != "ledger"), default=None)
    return first.code if first else exits.OK
