"""The options of every command, and their help. argparse: richer parsers cost more than a whole `creditguard check`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

from creditguard.cli import exits, values
from creditguard.cli.exits import UsageError

_WIDTH = 100


class _Parser(argparse.ArgumentParser):
    """Its help fits the terminal, and goes the way of all answers."""

    def __init__(self, **kwargs: Any) -> None:
        formatter = partial(argparse.RawDescriptionHelpFormatter, width=_WIDTH)
        super().__init__(allow_abbrev=False, formatter_class=formatter, **kwargs)
        self.register("type", None, values.some_text)  # for arguments without a type of their own
        self.color = False  # from Python 3.14 on: escapes would be counted as text

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        # argparse makes a formatter for each option, to look at it: the terminal is asked here only, once.
        import shutil
        import textwrap

        width = min(max(shutil.get_terminal_size().columns - 2, 20), _WIDTH)
        self.formatter_class: Callable[..., argparse.HelpFormatter] = partial(
            argparse.RawDescriptionHelpFormatter, width=width
        )
        lines = super().format_help().splitlines()
        return "".join(
            f"{textwrap.fill(line, width, subsequent_indent=_hang(line), break_on_hyphens=False)}\n" for line in lines
        )

    def _print_message(self, message: str, *_: object) -> None:
        from creditguard.cli.output import answer

        answer(message, end="")


def _hang(line: str) -> str:
    """What to put before the rest of a line that is too long: as much room as is before the text of its last column."""
    match = re.match(r"usage: | *\S+(?: \S+)*  +(?=\S)| *", line)
    return " " * (len(match[0]) if match else 0)


_ABOUT = (
    "A pre-flight credit guard for batch jobs: it reads the balance of a prepaid API account before a job starts, compares it "
    "with the budget that the job declares, refuses the job when it falls short, and reports what was consumed when it ends."
)

EXIT_CODES = (
    ("0", "enough credits, or CMD succeeded"),
    ("64", "the command line is wrong"),
    ("65", "the balance came in a form that was not understood"),
    ("69", "the balance (or the ledger) cannot be reached: trying again makes sense"),
    ("70", "a bug in creditguard"),
    ("74", "the answer could not be written: stdout is closed, or its disk full"),
    ("75", "short of credits: nothing ran"),
    ("77", "the API key was rejected"),
    ("78", "no API key, no budget, or another setting that cannot be used"),
    ("126", "run: CMD cannot be executed"),
    ("127", "run: CMD was not found"),
    ("128+N", "run: CMD was killed by signal N"),
    ("other", "run: CMD's own code"),
)

_EPILOG = f"""\
exit codes:
{chr(10).join(f"  {code:7}{meaning}" for code, meaning in EXIT_CODES)}

the key:
  APIMALL_API_KEY        the API key itself
  APIMALL_API_KEY_FILE   a file that holds it
There is no option for it. All other settings, and the settings file, are in the manual: creditguard completion man | man -l -

try it without a key:
  creditguard sandbox -- creditguard check --budget 80
"""


def build() -> argparse.ArgumentParser:
    """The parser of everything, for those who show it: the help, the completions, the manual."""
    parser = _Parser(prog="creditguard", description=_ABOUT, epilog=_EPILOG)
    parser.add_argument("-V", "--version", action="store_true", help="show the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=_Parser)
    for name, (summary, add_options) in COMMANDS.items():
        add_options(commands.add_parser(name, help=summary, description=_sentence(summary)))
    return parser


def build_command(name: str) -> _Parser:
    """The parser of one command, which is all that most starts need: making all of them takes longer than parsing."""
    summary, add_options = COMMANDS[name]
    parser = _Parser(prog=f"creditguard {name}", description=_sentence(summary))
    add_options(parser)
    return parser


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


_INSTEAD = {"-h": "help", "--help": "help", "-V": "version", "--version": "version"}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `module` is the command. Raises UsageError; SystemExit after --help."""
    if not arguments:
        return argparse.Namespace(module="help", topic=None, asked=False)
    own, command = _split(arguments)
    name = _INSTEAD.get(own[0], own[0]) if own else ""
    if name not in COMMANDS:
        if not own or name.startswith("-"):
            raise UsageError(f"a command is missing{f' before {name}' if name else ''} (see creditguard --help)")
        raise UsageError(f"there is no command {name!r}{_meant([name], COMMANDS)} (see creditguard --help)")
    for each in own:
        if each.endswith("=--") and each.startswith("--") and each.count("=") == 1:  # argparse stumbles over it
            raise UsageError(f"argument {each[:-3]}: it cannot be '--', which stands before CMD")
    parser = build_command(name)
    if any(action.dest == "argv" for action in parser._actions):
        options, unknown = parser.parse_known_args(own[1:])
    else:  # there is no CMD; what comes after `--` is no option
        options, unknown = parser.parse_known_args(arguments[1:])
        unknown = [each for each in unknown if each != "--"]
    if unknown:
        hint = _meant(unknown, [flag for flag in parser._option_string_actions if flag.startswith("--")])
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}{hint} (see {parser.prog} --help)")
    if hasattr(options, "argv"):
        options.argv += command
        if name == "run" and not options.argv:
            raise UsageError("run needs a command: creditguard run --budget N -- CMD [ARG...]")
    options.module = name
    return options


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what is CMD's: all after the first `--`, untouched."""
    arguments = list(arguments)
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _meant(given: Iterable[str], known: Collection[str]) -> str:
    import difflib

    for word in (each.partition("=")[0] for each in given if each not in known):
        near = [each for each in known if len(word) > 3 and each.startswith(word)]
        for found in near or difflib.get_close_matches(word, known, 1):
            return f": did you mean {found}?"
    return ""


def _time(command: argparse.ArgumentParser, flag: str, meaning: str, default: float | None = None) -> None:
    command.add_argument(flag, metavar="TIME", type=values.duration, default=default, help=meaning)


def _ledger_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--account", metavar="NAME", help="of this account only")
    command.add_argument(
        "--ledger", metavar="URL", help="default: CREDITGUARD_LEDGER, or the one in your state directory"
    )


def _record_options(command: argparse.ArgumentParser) -> None:
    forms = command.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="as a JSON array")
    forms.add_argument("--csv", action="store_true", help="as CSV")


def _past_options(
    command: argparse.ArgumentParser, since: str | None = None, note: str = "the ledger keeps 90 days"
) -> None:
    command.add_argument("--job", "--name", metavar="JOB", help="of this job only")
    command.add_argument(
        "--since",
        metavar="TIME",
        type=values.since,
        default=since,
        help=f"since so long ago (12h, 7d), or since a date ({note})",
    )
    _ledger_options(command)


def _preflight_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--budget",
        metavar="N",
        type=values.budget,
        help="credits that the job may need; from the settings file, by --name, if left out",
    )
    command.add_argument(
        "--name",
        metavar="NAME",
        help="the job's name, in events and in the settings file (default for run: CMD, or the script that it interprets)",
    )
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
    command.usage = "creditguard run [--budget N] [options] -- CMD [ARG...]"
    command.epilog = (
        "CMD keeps its stdin, stdout, stderr and exit code; events and messages of creditguard go to stderr."
    )
    _preflight_options(command)
    command.add_argument(
        "--report-file",
        metavar="FILE",
        help="write the report there as JSON, also when CMD fails or is refused; '-': to stdout, after CMD has ended",
    )
    command.add_argument(
        "--settle",
        metavar="TIME",
        type=values.settle,
        help="wait this long after CMD before the last reading (default 0), or 'stable': until two readings agree",
    )
    _time(
        command,
        "--watch",
        "read the balance this often while CMD runs (not more often than every 15s, which is polite)",
    )
    command.add_argument(
        "--threshold",
        metavar="SHARE",
        type=values.share,
        action="append",
        help="with --watch: log when this share of the budget (80%%, or 0.8) is spent (default: 50%%, 80%% and 100%%)",
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
    _time(command, "--kill-after", "SIGKILL CMD this long after it was told to end")
    command.add_argument("argv", metavar="CMD", nargs="*", type=str, help="the command and its arguments, after --")
    _time(command, "--wait", "wait up to this long for the budget to fit", 0.0)
    _time(command, "--interval", "between two looks (default 30s)", 30.0)


def _wait(command: argparse.ArgumentParser) -> None:
    _preflight_options(command)
    _time(command, "--timeout", "give up after (default 1h)", 3600.0)
    _time(command, "--interval", "between two looks (default 30s)", 30.0)


def _holds(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", nargs="?", choices=("list", "release"), default="list", help="default: list")
    command.add_argument("id", nargs="?", metavar="ID", help="the hold to release: a job that still runs is told")
    command.add_argument("--job", metavar="JOB", help="of this job only")
    _ledger_options(command)
    _record_options(command)


def _history(command: argparse.ArgumentParser) -> None:
    _past_options(command)
    _record_options(command)
    command.add_argument("--by", choices=("job", "day"), help="totals of each job, or of each day, instead of the runs")
    command.add_argument(
        "--limit",
        metavar="N",
        type=values.whole_number,
        help="so many of the latest runs (default: 20, or all with --since or --by)",
    )


def _suggest(command: argparse.ArgumentParser) -> None:
    _past_options(command)
    command.add_argument("--json", action="store_true", help="as a JSON array")


def _report(command: argparse.ArgumentParser) -> None:
    command.epilog = "It needs the extra: pip install 'creditguard[report]'. The page needs no network."
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="a page (.html) or a picture (.png, .svg); '-': the page, to stdout (default: report.html)",
    )
    _past_options(command, since="30d", note="default: 30d")


def _ledger(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=("init",), help="create or upgrade them; harmless to repeat")
    command.add_argument("--ledger", metavar="URL", help="default: CREDITGUARD_LEDGER")


def _record(command: argparse.ArgumentParser) -> None:
    command.add_argument("credits", type=values.keep, metavar="N", help="credits; negative for a refund")


def _extend(command: argparse.ArgumentParser) -> None:
    command.add_argument("credits", type=values.budget, metavar="N", help="credits more")
    command.add_argument("-q", "--quiet", action="store_true", help="log warnings and errors only")


def _doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as a JSON object")


def _completion(command: argparse.ArgumentParser) -> None:
    command.epilog = (
        'bash, zsh: eval "$(creditguard completion bash)"\n'
        "fish:      creditguard completion fish | source\n"
        "manual:    creditguard completion man | man -l -"
    )
    command.add_argument("shell", choices=("bash", "zsh", "fish", "man"), help="a shell, or man for the manual")


def _sandbox(command: argparse.ArgumentParser) -> None:
    command.usage = "creditguard sandbox [--port P] [--credits N] [-- CMD [ARG...]]"
    command.epilog = (
        "With CMD, it runs in the sandbox's environment, with a ledger of its own, and the sandbox ends with it. "
        "Without, the commands that lead another shell there are printed, and the sandbox serves until it is interrupted."
    )
    command.add_argument("--port", metavar="P", type=values.port, default=0, help="default: a free one")
    command.add_argument("--credits", type=values.keep, default=values.budget("120"), metavar="N", help="default: 120")
    command.add_argument("argv", metavar="CMD", nargs="*", type=str, help="a command and its arguments, after --")


def _help(command: argparse.ArgumentParser) -> None:
    command.set_defaults(asked=True)
    command.add_argument("topic", metavar="COMMAND", nargs="?", choices=tuple(COMMANDS), help="of this command")


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "balance": ("print what the account has left", _balance),
    "check": ("tell by the exit code whether a budget fits, without running anything", _check),
    "run": ("run CMD if its budget fits, and report what it consumed", _run),
    "wait": ("wait until a budget fits, without running anything", _wait),
    "holds": ("list what running jobs hold, or release a hold that should not be there", _holds),
    "history": ("list what the latest runs consumed, and which were refused, or add them up by job or day", _history),
    "suggest": ("suggest a budget for each job, from what its past runs consumed", _suggest),
    "report": ("make a page, or a picture, that shows where the credits went", _report),
    "ledger": ("make the tables of a shared ledger", _ledger),
    "record": ("inside of run: say that credits were spent", _record),
    "extend": ("inside of run: ask for more credits than the budget", _extend),
    "doctor": ("show each setting and where it came from, and whether all that a run needs is there", _doctor),
    "completion": ("print a completion script for a shell, or the man page", _completion),
    "sandbox": ("serve a local gateway that speaks the API Mall protocol, to try things and to test", _sandbox),
    "help": ("show this help, or that of a command", _help),
    "version": ("show the version", lambda _: None),
}
