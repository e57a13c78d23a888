"""The options of every command, and their help. argparse: richer parsers cost more than a whole `creditguard check`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from creditguard._version import __version__
from creditguard.cli import exits, values


class UsageError(Exception):
    """The command line could not be understood; the message is one line."""


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, width=100)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _formatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


_ABOUT = """\
A pre-flight credit guard for batch jobs: it reads the balance of a prepaid API account before a job starts, compares it
with the budget that the job declares, refuses the job when it falls short, and reports what was consumed when it ends.
"""

_EXITS = """\
exit codes:
  0     enough credits, or CMD succeeded
  64    the command line is wrong
  65    the balance came in a form that was not understood
  69    the balance (or the ledger) cannot be reached: trying again makes sense
  70    a bug in creditguard
  75    short of credits: nothing ran
  77    the API key was rejected
  78    no API key, no budget, or another setting that cannot be used
  126, 127, 128+N, any other   (run) CMD cannot be executed, was not found, was killed by signal N, its own code

settings:
  APIMALL_API_KEY or APIMALL_API_KEY_FILE   the key, or a file that holds it (there is no option for it)
  CREDITGUARD_BASE_URL, CREDITGUARD_LEDGER, CREDITGUARD_ACCOUNT, CREDITGUARD_TIMEOUT, ...   see docs/settings.md

try it without a key:
  creditguard sandbox --credits 120
"""


def build(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; of one command only, if it is known which: making all of them takes longer than parsing.

    argparse makes a help formatter for each option, to look at it: hence a width of its own, and none asked of the terminal.
    """
    parser = _Parser(prog="creditguard", description=_ABOUT, epilog=_EXITS)
    parser.add_argument("--version", action="version", version=f"creditguard {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=_Parser)

    for name in [only] if only in _COMMANDS else _COMMANDS:
        summary, add_options = _COMMANDS[name]
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(module=name)
        add_options(command)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UsageError; SystemExit after --help and --version."""
    own, command = _split(arguments)
    options = build(own[0] if own else None).parse_args(own)
    if hasattr(options, "argv"):
        options.argv += command
        if not options.argv:
            raise UsageError("run needs a command: creditguard run --budget N -- CMD [ARG...]")
    elif command:
        raise UsageError(f"unrecognized arguments: {' '.join(command)} (see creditguard {options.command} --help)")
    return options


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what is CMD's: all after the first `--`, untouched."""
    arguments = list(arguments)
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _interval_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--interval", metavar="TIME", type=values.duration, default=30.0, help="between two looks (default 30s)"
    )


def _ledger_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--account", metavar="NAME", help="of this account only")
    command.add_argument(
        "--ledger", metavar="URL", help="default: CREDITGUARD_LEDGER, or the one in your state directory"
    )
    command.add_argument("--json", action="store_true", help="as a JSON array")


def _preflight_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--budget",
        metavar="N",
        type=values.budget,
        help="credits that the job may need; from the settings file, by --name, if left out",
    )
    command.add_argument("--name", metavar="NAME", help="the job's name, in events and in the settings file")
    command.add_argument(
        "--keep", metavar="N", type=values.keep, help="credits that must stay on the account (default 0)"
    )
    command.add_argument(
        "--on-short", choices=("abort", "warn"), help="what to do when short: abort (default), or warn and go on"
    )
    command.add_argument(
        "--on-unreadable",
        choices=("abort", "warn"),
        help="what to do when the balance cannot be read (default: as --on-short)",
    )
    command.add_argument(
        "--account", metavar="NAME", help="the account, where several keys draw on one pool of credits"
    )
    command.add_argument("--ledger", metavar="URL", help="where holds are kept: none, sqlite:///PATH, postgresql://...")
    command.add_argument(
        "--label", metavar="NAME=VALUE", type=values.label, action="append", default=[], help="a label for the events"
    )
    command.add_argument(
        "--short-code",
        metavar="N",
        type=values.exit_code,
        default=exits.SHORT,
        help="exit code when short (default 75)",
    )
    command.add_argument("-q", "--quiet", action="store_true", help="log warnings and errors only")


def _balance(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json", action="store_true", help="as a JSON object, with account, unit, time and request id"
    )


def _check(command: argparse.ArgumentParser) -> None:
    _preflight_options(command)
    command.add_argument("--json", action="store_true", help="print the figures as a JSON object")
    command.add_argument(
        "--systemd",
        action="store_true",
        help="for ExecCondition=: every code but 0 and the one for short becomes 255, since systemd takes 1-254 for a skip",
    )


def _run(command: argparse.ArgumentParser) -> None:
    command.usage = "creditguard run --budget N [options] -- CMD [ARG...]"
    command.epilog = (
        "CMD keeps its stdin, stdout, stderr and exit code; events and messages of creditguard go to stderr."
    )
    _preflight_options(command)
    command.add_argument(
        "--report-file", metavar="FILE", help="write the report there as JSON, also when CMD fails or is refused"
    )
    command.add_argument(
        "--settle",
        metavar="TIME",
        type=values.settle,
        help="wait this long after CMD before the last reading (default 0), or 'stable': until two readings agree",
    )
    command.add_argument(
        "--watch",
        metavar="TIME",
        type=values.duration,
        help="read the balance this often while CMD runs (at least 15s)",
    )
    command.add_argument(
        "--threshold",
        metavar="SHARE",
        type=values.share,
        action="append",
        help="with --watch: log when this share of the budget is spent (default: 50%%, 80%% and 100%%)",
    )
    command.add_argument(
        "--on-overrun",
        choices=("warn", "stop"),
        default="warn",
        help="what to do when CMD goes over its budget: warn (default), or stop it: SIGTERM, after --kill-after SIGKILL",
    )
    command.add_argument(
        "--stop-below", metavar="N", type=values.keep, help="with --watch: stop CMD when the account has less than this"
    )
    command.add_argument(
        "--progress", action="store_true", help="with --watch, on a terminal: a line of what is spent, left and to come"
    )
    command.add_argument(
        "--kill-after", metavar="TIME", type=values.duration, help="SIGKILL CMD this long after it was told to end"
    )
    command.add_argument("argv", metavar="CMD", nargs="*", help="the command and its arguments, after --")

    command.add_argument(
        "--wait", metavar="TIME", type=values.duration, default=0.0, help="wait up to this long for the budget to fit"
    )
    _interval_option(command)


def _wait(command: argparse.ArgumentParser) -> None:
    _preflight_options(command)
    command.add_argument(
        "--timeout", metavar="TIME", type=values.duration, default=3600.0, help="give up after (default 1h)"
    )
    _interval_option(command)


def _holds(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", nargs="?", choices=("list", "release"), default="list", help="default: list")
    command.add_argument("id", nargs="?", metavar="ID", help="the hold to release: a job that still runs is told")
    _ledger_options(command)


def _history(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", metavar="NAME", help="of this job only")
    command.add_argument("--limit", metavar="N", type=values.whole_number, default=20, help="default: 20")
    _ledger_options(command)


def _ledger(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=("init",), help="create or upgrade them; harmless to repeat")
    command.add_argument("--ledger", metavar="URL", help="default: CREDITGUARD_LEDGER")


def _record(command: argparse.ArgumentParser) -> None:
    command.add_argument("credits", type=values.keep, metavar="N", help="credits; negative for a refund")


def _completion(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "shell", choices=("bash", "zsh", "fish", "man"), help='as in: eval "$(creditguard completion bash)"'
    )


def _sandbox(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=values.port, default=0, help="default: a free one")
    command.add_argument("--credits", type=values.keep, default=values.budget("120"), metavar="N", help="default: 120")


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "balance": ("print what the account has left", _balance),
    "check": ("tell by the exit code whether a budget fits, without running anything", _check),
    "run": ("run CMD if its budget fits, and report what it consumed", _run),
    "wait": ("wait until a budget fits, without running anything", _wait),
    "holds": ("list what running jobs hold, or release a hold that should not be there", _holds),
    "history": ("list what the latest runs consumed", _history),
    "ledger": ("make the tables of a shared ledger", _ledger),
    "record": ("inside of run: say that credits were spent", _record),
    "completion": ("print a completion script for a shell, or the man page", _completion),
    "sandbox": ("serve a local gateway that speaks the API Mall protocol, to try things and to test", _sandbox),
}
