"""`creditguard doctor`: each setting and where it came from, whether all that a run needs is there, and what to do where it is not."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterator

from creditguard import settings as _settings
from creditguard.cli import exits, findings, table
from creditguard.cli.findings import Finding
from creditguard.cli.holds import as_json
from creditguard.cli.output import answer
from creditguard.errors import ConfigurationError
from creditguard.rules.text import printable
from creditguard.rules.values import LiveHold
from creditguard.settings import Explanation
from creditguard.settings.files import search, working_directory

_STYLES = {"ok": "\x1b[32m", "warning": "\x1b[33m", "wrong": "\x1b[31m", "unknown": "\x1b[2m"}


def run(options: argparse.Namespace) -> int:
    """Look at everything, and end with the code that `check` would end with."""
    holds: list[LiveHold] = []
    try:
        explained, current = _settings.explain(), _settings.current()
    except ConfigurationError as error:
        found = search(working_directory())
        in_use = {file.path for file in found.files}
        explained = Explanation((), tuple((path, path in in_use) for path in found.looked_at))
        all_found = findings.of_settings(error, options)
    else:
        of_gateway, skew = findings.of_gateway(current)
        of_ledger, holds = findings.of_ledger(current, options)
        of_account = findings.of_key_and_balance(current, options, reachable=of_gateway.state == "ok")
        all_found = [of_gateway, *of_account, *of_ledger, findings.of_clock(skew)]
    code = findings.code_of(all_found)
    if options.json:
        answer(json.dumps(_as_json(explained, all_found, holds, code)))
    else:
        answer("\n".join(_lines(explained, all_found, holds)))
    return code


def _as_json(explained: Explanation, all_found: list[Finding], holds: list[LiveHold], code: int) -> dict[str, object]:
    return {
        "ok": code == exits.OK,
        "exit_code": code,
        "settings": [setting._asdict() for setting in explained.settings],
        "files": [{"path": path, "in_use": in_use} for path, in_use in explained.files],
        "checks": [
            {"check": each.check, "state": each.state, "found": each.found, "to_do": each.to_do or None}
            for each in all_found
        ],
        "holds": [as_json(hold) for hold in holds],
    }


def _lines(explained: Explanation, all_found: list[Finding], holds: list[LiveHold]) -> Iterator[str]:
    colours = table.wants_colour()
    longest = max((len(setting.name) for setting in explained.settings), default=0)
    yield "settings:"
    for name, value, origin in explained.settings:
        yield _wrapped(f"  {name:{longest}}  ", f"{_shown(value)}  ({origin})")
    yield "settings files (the first wins):"
    for path, in_use in explained.files:
        yield _wrapped(f"  {'in use' if in_use else 'none':6}  ", path)
    yield "checks:"
    for finding in all_found:
        line = _wrapped(f"  {finding.state:7}  {finding.check:8}  ", finding.found)
        state = f"{_STYLES[finding.state]}{finding.state:7}\x1b[0m"
        yield line.replace(f"{finding.state:7}", state, 1) if colours else line
        if finding.to_do:
            yield _wrapped(f"  {'':7}  {'':8}  -> ", finding.to_do)
        if finding.check == "holds":
            for hold in holds:
                each = as_json(hold)
                yield _wrapped(
                    f"  {'':7}  {'':8}  ",
                    "{job}: {credits} since {since} ({run_id}, pid {pid} on {host})".format(**each),
                )


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "-", True: "on", False: "off"}[value]
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _wrapped(head: str, text: str) -> str:
    """Within the terminal's width, if it is one."""
    text = printable(text)
    if not table.is_terminal():
        return head + text
    width = max(shutil.get_terminal_size().columns, len(head) + 10)
    return textwrap.fill(text, width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)
