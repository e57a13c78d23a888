"""Completions and the man page: as the parser is, shipped with the package, and good for real shells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from window import Terminal

from creditguard.cli.completion import FILES
from creditguard.cli.parser import COMMANDS, build_command

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "creditguard/cli/shell"

_spec = spec_from_file_location("shell_files", ROOT / "docs/shell_files.py")
shell_files = module_from_spec(_spec)
_spec.loader.exec_module(shell_files)


def needs(tool):
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed here")


def test_they_are_current():
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == shell_files.made(), "run: make shell-files"


@pytest.mark.parametrize("shell", FILES)
def test_the_shipped_file_is_printed_and_nothing_made(creditguard, shell):
    done = creditguard("completion", shell)
    assert (done.code, done.stdout, done.stderr) == (0, (FOLDER / FILES[shell]).read_text(), "")
    script = f"import sys; from creditguard.cli import main; main(['completion', {shell!r}]); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30).stderr.split()
    assert not {"shtab", "argparse_manpage", "creditguard.guarding", "creditguard.settings"} & set(loaded)


COMPLETED = [
    ("ru", "run"),
    ("chec", "check"),
    ("run --on-short ab", "abort"),
    ("run --rep", "--report-file"),
    ("run --report-file CHANGE", "CHANGELOG.md"),
    ("check --sys", "--systemd"),
    ("holds rel", "release"),
    ("help hist", "history"),
    ("run --budget 5 -- basenam", "basename"),
    ("run --budget 5 -- cat CHANGE", "CHANGELOG.md"),
    ("sandbox -- basenam", "basename"),
]
"""What is typed before the TAB, and what its last word becomes."""


def completes(shell, setup, words, becomes, environment):
    """Type `creditguard WORDS` and TAB in an interactive shell, and see what the last word becomes."""
    terminal = Terminal(*shell, columns=200, **environment)
    try:
        terminal.type(f"cd {ROOT}; {setup}; PS1='='\">\"\n")  # the prompt does not stand in the echo of this line
        terminal.shows("^=>")
        terminal.type(f"creditguard {words}\t")
        completed = f"=>creditguard {words.rpartition(' ')[0]} {becomes}".replace("  ", " ")
        terminal.until(lambda: completed in terminal.lines, completed)
    finally:
        terminal.close()


@pytest.fixture
def environment():
    return {**os.environ, "TERM": "dumb", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@needs("bash")
@pytest.mark.parametrize(("words", "becomes"), COMPLETED)
def test_bash_completes(environment, words, becomes):
    completes(["bash", "--norc", "-i"], 'eval "$(creditguard completion bash)"', words, becomes, environment)


ZSH = "unsetopt zle_bracketed_paste prompt_cr prompt_sp; autoload -Uz compinit"


@needs("zsh")
@pytest.mark.parametrize(
    ("setup", "words", "becomes"),
    [
        *(('compinit -u -D; eval "$(creditguard completion zsh)"', *each) for each in COMPLETED),
        (f"fpath=({FOLDER} $fpath); compinit -u -D", "run --rep", "--report-file"),
    ],
)
def test_zsh_completes(environment, setup, words, becomes):
    completes(["zsh", "-f", "-i"], f"{ZSH}; {setup}", words, becomes, environment)


@needs("fish")
@pytest.mark.parametrize(("words", "becomes"), COMPLETED)
def test_fish_completes(environment, words, becomes, tmp_path):
    script = f"source {FOLDER}/creditguard.fish; complete -C 'creditguard {words}'"
    environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(["fish", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert becomes in [line.split("\t")[0] for line in done.stdout.splitlines()], done.stderr


@needs("bash")
def test_options_of_ours_are_none_of_the_commands(environment, tmp_path):
    """`--on-short` after `--` is a word like any other."""
    (tmp_path / "only-file").touch()
    script = (
        f"source {FOLDER}/creditguard.bash; COMP_WORDS=(creditguard run -- ls --on-short ''); COMP_CWORD=5\n"
        '_creditguard; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "only-file\n"


MANUAL = (FOLDER / "creditguard.1").read_text().replace("\\-", "-")


def test_the_manual_has_everything():
    sections = re.findall(r"^\.SH\s+(.+)$", MANUAL, re.MULTILINE)
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXIT STATUS", "ENVIRONMENT", "FILES"} <= set(sections)
    variables = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    assert "CREDITGUARD_LEDGER" in variables
    for variable in [*variables, "CREDITGUARD_CONFIG", "CREDITGUARD_RECORD_FILE"]:
        assert f".B {variable}\n" in MANUAL
    for name in COMMANDS:
        assert f"creditguard {name}" in MANUAL
        assert [
            flag for flag in build_command(name)._option_string_actions if flag[:2] == "--" and flag not in MANUAL
        ] == ["--help"]  # every command has it
    assert re.search(r"--budget\S* \\fI\\,N", MANUAL)
    assert re.search(r"--report-file\S* \\fI\\,FILE", MANUAL)


@needs("man")
def test_the_manual_renders():
    done = subprocess.run(
        ["man", "-l", "--warnings", FOLDER / "creditguard.1"],
        env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "--report-file FILE" in done.stdout


def test_an_installed_package_has_them_where_shells_and_man_look():
    shared = (ROOT / "pyproject.toml").read_text().partition("shared-data]")[2].partition("\n[")[0]
    assert dict(re.findall(r'"(.+)" = "(.+)"', shared)) == {
        "creditguard/cli/shell/creditguard.1": "share/man/man1/creditguard.1",
        "creditguard/cli/shell/creditguard.bash": "share/bash-completion/completions/creditguard",
        "creditguard/cli/shell/_creditguard": "share/zsh/site-functions/_creditguard",
        "creditguard/cli/shell/creditguard.fish": "share/fish/vendor_completions.d/creditguard.fish",
    }
