"""`creditguard report`: a page, or a picture, of where the credits went."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from datetime import datetime, timezone
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Literal, TypeAlias

from creditguard.cli import exits
from creditguard.cli.exits import UsageError
from creditguard.cli.output import Unwritable, answer, say
from creditguard.cli.preflight import ledger_for
from creditguard.cli.report_file import is_special, write_whole
from creditguard.errors import ConfigurationError
from creditguard.report.figures import History, collect
from creditguard.report.wording import plural

_Form: TypeAlias = Literal["html", "png", "svg"]
_FORMS: dict[str, _Form] = {".html": "html", ".htm": "html", ".png": "png", ".svg": "svg"}
_USUAL = "report.html"
_DESCRIPTORS = 32
"""As many as making a page takes, and some more."""
_OURS = b'<meta name="generator" content="creditguard '


def run(options: argparse.Namespace) -> int:
    """Make the page of all runs that the options name. Whatever goes wrong, no half of a page is left behind."""
    path, form = _place(options.output)
    ledger = ledger_for(options)
    _need_the_extra()
    now = datetime.now(timezone.utc).astimezone()
    reports = ledger.runs(since=options.since, job=options.job, account=options.account)
    history = collect(reports, options.since.astimezone(), now)
    _need_means()
    content = _make(history, form)
    if path == "-":
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as the page says of itself, whatever the locale
        answer(content.decode(), end="")
        return exits.OK
    try:
        write_whole(path, content)
    except OSError as error:
        say(f"-o: {path} cannot be written: {error.strerror or error}")
        return exits.UNWRITABLE
    say(f"{path}: {plural(len(history.runs), 'run')} since {options.since.astimezone():%Y-%m-%d %H:%M}")
    return exits.OK


def _form(path: str) -> _Form:
    form = _FORMS.get(Path(path).suffix.lower())
    if form is None and is_special(path):
        return "html"
    if form is None:
        raise UsageError(
            f"argument -o/--output: it must end with .html, .png or .svg, or be '-' for stdout, not {path!r}"
        )
    return form


def _place(output: str | None) -> tuple[str, _Form]:
    """Where it goes, and as what. Raises ConfigurationError if it cannot: better now than when all is made."""
    path = _USUAL if output is None else output
    if path == "-":
        if sys.stdout is None:
            raise Unwritable("stdout is closed")
        return path, "html"
    try:
        form = _form(path)
        theirs = output is None and Path(path).is_file() and _OURS not in Path(path).read_bytes()[:4096]
        is_folder, has_folder = Path(path).is_dir(), Path(path).parent.is_dir()
    except (OSError, ValueError) as error:  # a name that is too long, or with a NUL
        raise ConfigurationError(f"-o: {path!r}: {getattr(error, 'strerror', None) or error}", "output") from None
    if theirs:
        raise ConfigurationError(f"{path} is there already, and no report of ours: say where to by -o FILE", "output")
    if is_folder:
        raise ConfigurationError(f"-o: {path} is a directory: name a file in it", "output")
    if not has_folder:
        raise ConfigurationError(f"-o: there is no directory {Path(path).parent}", "output")
    return path, form


def _need_the_extra() -> None:
    if sys.flags.optimize > 1:
        message = "report cannot work without docstrings, which altair needs: not with PYTHONOPTIMIZE=2"
        raise ConfigurationError(message, "PYTHONOPTIMIZE")
    for module, package in (("altair", "altair"), ("vl_convert", "vl-convert-python")):
        if find_spec(module) is None:
            raise ConfigurationError(f"report needs {package}: pip install 'creditguard[report]'")


def _need_means() -> None:
    """Raises OSError where there are too few descriptors, and RuntimeError where there is no thread: vl-convert would end us in a
    panic, with a traceback."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    taken: list[int] = []
    try:
        while len(taken) < _DESCRIPTORS:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for each in taken:
            os.close(each)


def _make(history: History, form: _Form) -> bytes:
    if form == "html":
        from creditguard.report import page

        return page.make(history).encode()
    from creditguard.report import picture

    return picture.make(history, form)
