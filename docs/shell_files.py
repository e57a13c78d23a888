"""Makes what a shell wants to know of the command line, from its parser: completions (shtab), manual (argparse-manpage).

    python docs/shell_files.py          # make shell-files

They are written into the package, for `creditguard completion` to print; a test compares them with what this makes.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from creditguard.cli.completion import FILES
from creditguard.cli.parser import EXIT_CODES, build

DOCS = Path(__file__).parent
FOLDER = DOCS.parent / "creditguard/cli/shell"

# After `--` all words are those of another command, options included, and completed as that command's own.
BASH = """

_creditguard() {
  local at
  for ((at = 1; at < COMP_CWORD; at++)); do
    if [[ ${COMP_WORDS[at]} == -- ]]; then
      if declare -F _command_offset >/dev/null; then
        _command_offset $((at + 1))
      elif ((COMP_CWORD == at + 1)); then
        mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
      else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
      fi
      return
    fi
  done
  _shtab_creditguard
}
complete -o bashdefault -F _creditguard creditguard
"""
ZSH = """
_creditguard_command() {
  local -i at=${words[(i)--]}
  (( at < CURRENT )) && { shift $at words; (( CURRENT -= at )) }
  _normal
}
"""
FISH = """
function _shtab_creditguard_using
  contains -- -- (commandline -opc); and return 1
  _shtab_creditguard_scan
  test "$_shtab_creditguard_cmdpath" = "$argv"
end

function _creditguard_command
  set -l tokens (commandline -opc)
  set -l at (contains -i -- -- $tokens)
  complete -C (string join ' ' -- (string escape -- $tokens) (commandline -ct) | string replace -r '^.*? -- ' '')
end
complete -c creditguard -n 'contains -- -- (commandline -opc)' -xka '(_creditguard_command)'
"""


def completion(shell: str) -> str:
    """The script for a shell."""
    parser = build()
    for command in commands(parser).values():
        for action in command._actions:  # noqa: SLF001 - argparse has no other way to ask
            if action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.dest == "argv":
                action.nargs = argparse.REMAINDER
                action.complete = {"zsh": "_creditguard_command"}  # type: ignore[attr-defined]
    preamble = ZSH if shell == "zsh" else ""
    tail = {"bash": BASH, "fish": FISH}.get(shell, "")
    return shtab.complete(parser, shell, preamble=preamble).rstrip("\n") + "\n" + tail


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (subparsers,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001
    return dict(subparsers.choices)


def manual() -> str:
    """The man page, creditguard(1)."""
    parser = build()
    parser.epilog = None
    for name, command in commands(parser).items():
        command.description = command.epilog  # in place of its summary again
        words = [each.metavar or "|".join(each.choices or ()) for each in command._actions if not each.option_strings]  # noqa: SLF001
        command.usage = command.usage or " ".join(
            ["creditguard", name, "[options]", *map(str, words)]
        )  # the same for all Pythons
    about = {
        "description": "pre-flight credit guard for batch jobs",
        "project_name": "creditguard",
        "manual_title": "User Commands",
        "date": " ",
    }
    page = Manpage(parser, about, format="single-commands-section")
    page.add_section(
        "SYNOPSIS", ">", ".B creditguard\n.I COMMAND\n[options]\n.br\n.B creditguard run\n[options] \\-\\- CMD [ARG...]"
    )
    page.add_section("EXIT STATUS", ">", terms(EXIT_CODES))
    page.add_section("ENVIRONMENT", ">", terms(settings()))
    page.add_section("FILES", ">", terms(PLACES.items()))
    page.add_section("EXAMPLES", ">", "\n".join(f".nf\n{roff(line)}\n.fi\n.PP" for line in EXAMPLES))
    return str(page)


PLACES = {
    "creditguard.toml": "settings, in the working directory or its nearest parent that has one: the variables above without "
    "CREDITGUARD_ and in lower case, and [jobs.NAME] budget = N for the job NAME",
    "pyproject.toml": "the same under [tool.creditguard], where there is no creditguard.toml",
    "$XDG_CONFIG_HOME/creditguard/config.toml, ~/.config/creditguard/config.toml, /etc/creditguard/config.toml": "the user's and "
    "the system's settings, beneath those",
    "$XDG_STATE_HOME/creditguard/ledger.db, ~/.local/state/creditguard/ledger.db": "the default ledger: what running jobs "
    "hold, and the history",
}
EXAMPLES = (
    "creditguard check --budget 80 && echo enough",
    "creditguard run --budget 80 --name nightly -- python batch.py",
    "creditguard run --budget 80 --watch 30s --progress --report-file report.json -- ./enrich.sh",
    "creditguard sandbox -- sh -c 'creditguard run --budget 80 -- ./enrich.sh'",
)


def settings() -> list[tuple[str, str]]:
    """The table of docs/settings.md, as variables and what they mean."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|.*?\| (.*?) \| (.*?) \|$", (DOCS / "settings.md").read_text(), re.MULTILINE)
    meanings = [
        (name, meaning if default == "-" else f"{meaning} (default: {default})") for name, meaning, default in rows
    ]
    more = [
        ("CREDITGUARD_CONFIG", "the settings file, in place of the one that is found by the working directory"),
        (
            "HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR",
            "proxies and certificate authorities, as for other programs",
        ),
        ("NO_COLOR, COLUMNS", "no colours; the width of the help"),
        ("CREDITGUARD_DEBUG", "1: show where a bug of creditguard's is"),
        (
            "CREDITGUARD_RUN_ID, CREDITGUARD_JOB, CREDITGUARD_BUDGET",
            "set for CMD: the run's id, its job's name and its budget",
        ),
        ("CREDITGUARD_RECORD_FILE", "set for CMD: a file to which it may append what it has spent, one amount a line"),
    ]
    return meanings + more


def terms(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms and what they mean."""
    return "\n".join(f".TP\n.B {roff(term)}\n{roff(meaning.replace('`', ''))}" for term, meaning in pairs)


def roff(text: str) -> str:
    """The text, with nothing in it that roff would take for its own."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def made() -> dict[str, str]:
    """The files, by name."""
    return {name: manual() if kind == "man" else completion(kind) for kind, name in FILES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in made().items():
        (FOLDER / name).write_text(content)
