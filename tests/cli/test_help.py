"""What somebody sees who asks for help, or mistypes: help that fits, what was probably meant, and his own words."""

from __future__ import annotations

import re

import pytest

import creditguard as package
from creditguard.cli.parser import COMMANDS
from creditguard.cli.values import share

HELP = [(), *((command,) for command in COMMANDS)]


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help(creditguard, command):
    done = creditguard(*command, "--help")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["usage: creditguard", *command]))
    assert creditguard("help", *command).stdout == done.stdout
    assert creditguard(*command, "-h").stdout == done.stdout


@pytest.mark.parametrize("command", HELP, ids=" ".join)
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(creditguard, command, columns):
    text = creditguard("help", *command, env={"COLUMNS": str(columns)}).stdout
    assert max(map(len, text.splitlines())) < min(columns, 120)
    words = " ".join(text.split())
    assert words == " ".join(creditguard("help", *command, env={"COLUMNS": "120"}).stdout.split())


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_sends_nobody_to_a_file_that_is_not_installed(creditguard, command):
    assert not re.search(r"docs/|\.md\b|README", creditguard("help", *command).stdout)


def test_creditguard_alone_shows_help_and_is_no_success(creditguard):
    """A script whose command has got lost must not take it for `enough`."""
    done = creditguard()
    assert (done.code, done.stdout, done.stderr) == (64, "", creditguard("help").stdout)


@pytest.mark.parametrize("way", ["version", "--version", "-V"])
def test_version(creditguard, way):
    done = creditguard(way)
    assert (done.code, done.stdout, done.stderr) == (0, f"creditguard {package.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("chekc",), "check"),
        (("hold",), "holds"),
        (("balanse", "--json"), "balance"),
        (("check", "--budgte", "5"), "--budget"),
        (("check", "--bud=5"), "--budget"),
        (("run", "--report", "x", "--", "true"), "--report-file"),
        (("run", "--label", "a=b", "--on-shrot=warn", "--", "true"), "--on-short"),
        (("history", "--acount", "x"), "--account"),
        (("sandbox", "--prot", "80"), "--port"),
    ],
)
def test_did_you_mean(creditguard, arguments, meant):
    done = creditguard(*arguments)
    assert (done.code, done.stdout, len(done.messages)) == (64, "", 1)
    assert f"did you mean {meant}?" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("check", "--frobnicate"), ("--frobnicate",), ("--json", "balance"), ("--",)]
)
def test_nothing_is_meant(creditguard, arguments):
    done = creditguard(*arguments)
    assert (done.code, done.stdout, len(done.messages)) == (64, "", 1)
    assert "did you mean" not in done.stderr
    assert "--help)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("run", "--name", "nightly", "--", "true"),
            "pass --budget, or set it in creditguard.toml under [jobs.nightly]",
        ),
        (("check", "--budget", "5", "--ledger", "mysql://u:hush@host/db"), "--ledger must be none, sqlite:///PATH"),
        (("history", "--ledger", "sqlite:///"), "--ledger must name a file"),
        (("check", "--budget", "5", "--account", "two\nlines"), "--account must be a name of 1 to 200"),
        (("check", "--budget", "5", "--name", " "), "--name must be a name of 1 to 200"),
        (("run", "--budget", "5", "--stop-below", "3", "--", "true"), "--stop-below needs --watch, the seconds"),
    ],
)
def test_errors_are_in_the_words_that_were_used(gateway, creditguard, tmp_path, arguments, words):
    report = ("--report-file", "report.json") if arguments[0] == "run" else ()
    done = creditguard(arguments[0], *report, *arguments[1:], cwd=tmp_path)
    assert (done.code, done.stdout, len(done.messages)) == (78, "", 1)
    assert words in done.stderr
    assert "hush" not in done.stderr


def test_and_of_the_environment_where_that_was_used(gateway, creditguard):
    done = creditguard("history", env={"CREDITGUARD_LEDGER": "sqlite:///"})
    assert (done.code, done.stderr.startswith("creditguard: CREDITGUARD_LEDGER must name a file")) == (78, True)
    done = creditguard("check", "--budget", 5, "--account", "mine", env={"CREDITGUARD_ACCOUNT": "two\nlines"})
    assert "CREDITGUARD_ACCOUNT must be a name" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("balance",), ("check", "--budget", "5"), ("run", "--budget", "5", "--", "true")]
)
def test_no_key_names_the_sandbox(gateway, creditguard, arguments):
    done = creditguard(*arguments, env={"APIMALL_API_KEY": None})
    assert (done.code, len(done.messages)) == (78, 1)
    assert "APIMALL_API_KEY" in done.stderr
    assert f"creditguard sandbox -- creditguard {arguments[0]}" in done.stderr


def test_a_share_is_no_number_of_budgets(gateway, creditguard, tmp_path):
    for given in ("80", "2", "100"):
        done = creditguard(
            "run", "--budget", 5, "--watch", "15s", "--threshold", given, "--", "touch", tmp_path / "ran"
        )
        assert (done.code, len(done.messages)) == (64, 1)
        assert f"{given}% is meant?" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert [str(share(text)) for text in ("0.8", "80%", "1.5", "250%", "1")] == ["0.8", "0.8", "1.5", "2.5", "1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--progress",), "--progress: nothing without --watch TIME"),
        (
            ("--threshold", "50%", "--on-overrun", "stop"),
            "--threshold, --on-overrun stop: nothing without --watch TIME",
        ),
        (("--watch", "5"), "--watch 5: the balance is read every 15 s, not more often"),
    ],
)
def test_options_that_do_not_do_what_they_seem_to_are_told(gateway, creditguard, options, said):
    done = creditguard("run", "--budget", 5, *options, "--", "true")
    (message,) = done.messages
    assert (done.code, message.startswith(f"creditguard: {said}")) == (0, True)


def test_options_that_do_are_not(gateway, creditguard):
    environment = {"CREDITGUARD_MIN_INTERVAL": "1"}
    done = creditguard(
        "run", "--budget", 5, "--watch", 1, "--progress", "--threshold", "50%", "--", "true", env=environment
    )
    assert (done.code, done.messages) == (0, [])
