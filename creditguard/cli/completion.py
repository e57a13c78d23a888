"""`creditguard completion SHELL` and the man page, both made from the parser, so that they cannot fall behind it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from creditguard.cli import exits
from creditguard.cli.parser import build


@dataclass(frozen=True)
class _Option:
    names: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...]
    is_file: bool


@dataclass(frozen=True)
class _Command:
    name: str
    help: str
    options: tuple[_Option, ...]
    words: tuple[str, ...]
    """What may stand behind it besides options: `list`, `release`."""


def run(options: argparse.Namespace) -> int:
    """Print the completion script for a shell, or the man page."""
    print({"bash": bash, "zsh": zsh, "fish": fish, "man": man}[options.shell](), end="")
    return exits.OK


def _commands() -> Iterator[_Command]:
    (subparsers,) = (action for action in build()._actions if isinstance(action, argparse._SubParsersAction))
    for choice in subparsers._choices_actions:
        parser = subparsers.choices[choice.dest]
        positional = [action for action in parser._actions if not action.option_strings]
        yield _Command(
            choice.dest,
            choice.help or "",
            tuple(_option(action) for action in parser._actions if action.option_strings),
            tuple(str(word) for action in positional for word in action.choices or ()),
        )


def _option(action: argparse.Action) -> _Option:
    return _Option(
        tuple(action.option_strings),
        (action.help or "").replace("%%", "%"),
        action.nargs != 0,
        tuple(str(choice) for choice in action.choices or ()),
        action.metavar == "FILE",
    )


def bash() -> str:
    """A script for bash. After `--`, the words are those of another command."""
    cases, values = [], []
    for command in _commands():
        words = " ".join([*(name for option in command.options for name in option.names), *command.words])
        cases.append(f'        {command.name}) words="{words}" ;;')
        for option in command.options:
            pattern = "|".join(f"{command.name}:{name}" for name in option.names)
            if option.is_file:
                values.append(f'        {pattern}) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;')
            elif option.takes_value:
                choices = " ".join(option.choices)
                values.append(
                    f'        {pattern}) mapfile -t COMPREPLY < <(compgen -W "{choices}" -- "$current"); return ;;'
                )
    names = " ".join(command.name for command in _commands())
    return f"""\
# bash completion for creditguard: eval "$(creditguard completion bash)"
_creditguard() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]-}} words="" at
    COMPREPLY=()
    for ((at = 2; at < COMP_CWORD; at++)); do
        if [[ ${{COMP_WORDS[at]}} == -- ]]; then
            if ((COMP_CWORD == at + 1)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$current")
            else
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            return
        fi
    done
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "{names} --help --version" -- "$current")
        return
    fi
    case $command:${{COMP_WORDS[COMP_CWORD - 1]}} in
{chr(10).join(values)}
    esac
    case $command in
{chr(10).join(cases)}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -o filenames -F _creditguard creditguard
"""


def zsh() -> str:
    """A script for zsh."""
    names = "\n".join(f"        {_quoted(f'{command.name}:{command.help}')}" for command in _commands())
    cases = []
    for command in _commands():
        lines = [_zsh_option(option) for option in command.options]
        if command.words:
            lines.append(_quoted(f"1:action:({' '.join(command.words)})"))
        if command.name == "run":
            lines.append("'(-)*:: :_normal'")
        cases.append(f"        {command.name}) _arguments -s -S {' '.join(lines)} ;;")
    return f"""\
#compdef creditguard
# zsh completion for creditguard: eval "$(creditguard completion zsh)"
_creditguard() {{
    local -a commands
    commands=(
{names}
    )
    if ((CURRENT == 2)); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    ((CURRENT--))
    case $command in
{chr(10).join(cases)}
    esac
}}
if [[ ${{funcstack[1]}} == _creditguard ]]; then
    _creditguard "$@"  # loaded from a directory of functions
else
    compdef _creditguard creditguard
fi
"""


def _zsh_option(option: _Option) -> str:
    text = option.help.replace("[", "(").replace("]", ")").replace(":", ",")
    value = ""
    if option.is_file:
        value = ":file:_files"
    elif option.takes_value:
        value = f":value:({' '.join(option.choices)})"
    return " ".join(_quoted(f"{name}[{text}]{value}") for name in option.names)


def fish() -> str:
    """A script for fish."""
    lines = [
        "# fish completion for creditguard: creditguard completion fish | source",
        "complete -c creditguard -f",
    ]
    for command in _commands():
        lines.append(f"complete -c creditguard -n __fish_use_subcommand -a {command.name} -d {_quoted(command.help)}")
        seen = f"-n '__fish_seen_subcommand_from {command.name}; and not contains -- -- (commandline -opc)'"
        if command.words:
            lines.append(f"complete -c creditguard {seen} -a {_quoted(' '.join(command.words))}")
        for option in command.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = ""
            if option.is_file:
                value = " -r -F"
            elif option.choices:
                value = f" -x -a {_quoted(' '.join(option.choices))}"
            elif option.takes_value:
                value = " -x"
            lines.append(f"complete -c creditguard {seen} {names}{value} -d {_quoted(option.help)}")
    after = "contains -- -- (commandline -opc)"
    lines.append(f"complete -c creditguard -n '{after}' -F -a '(__fish_complete_command)'")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def man() -> str:
    """The man page, creditguard(1)."""
    parser = build()
    lines = [
        '.TH CREDITGUARD 1 "" "creditguard" "User Commands"',
        ".SH NAME",
        "creditguard \\- a pre\\-flight credit guard for batch jobs",
        ".SH SYNOPSIS",
        ".B creditguard",
        ".I COMMAND",
        "[options]",
        ".br",
        ".B creditguard run \\-\\-budget",
        ".I N",
        "[options] \\-\\- CMD [ARG...]",
        ".SH DESCRIPTION",
        _roff((parser.description or "").strip()),
        ".SH COMMANDS",
    ]
    for command in _commands():
        lines += [f".SS {command.name}", _roff(command.help[0].upper() + command.help[1:] + ".")]
        for option in command.options:
            names = ", ".join(option.names)
            choices = f" {{{','.join(option.choices)}}}" if option.choices else ""
            lines += [".TP", f".B {_roff(names + choices)}", _roff(option.help)]
    lines += [".SH EXIT CODES AND SETTINGS", ".nf", _roff((parser.epilog or "").strip()), ".fi"]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n"))
