"""Where answers and messages go, and what becomes of them when they cannot: one line, a documented code, never a traceback."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from creditguard import guard
from creditguard.cli.parser import EXIT_CODES
from creditguard.ledgers import open_ledger

COMMAND = [sys.executable, "-m", "creditguard"]
ANSWERS = [
    ("balance",), ("balance", "--json"), ("check", "--budget", "5"), ("check", "--budget", "5", "--json"), ("history",),
    ("history", "--json"), ("holds",), ("holds", "--json"), ("completion", "bash"), ("completion", "man"), ("--help",),
    ("history", "--csv"), ("history", "--by", "job"), ("history", "--by", "day", "--csv"), ("holds", "--csv"), ("suggest",),
    ("suggest", "--json"), ("doctor",), ("doctor", "--json"), ("--version",), ("-V",), ("version",), ("help",), ("help", "run"), ("run", "--help"), ("ledger", "init"), ("sandbox",),
]  # fmt: skip


@pytest.fixture
def something_to_show(gateway):
    with guard("earlier", budget=5):
        pass
    with guard("running", budget=5):
        yield


@pytest.mark.parametrize("arguments", ANSWERS, ids=" ".join)
def test_a_full_disk_under_stdout_is_74_and_one_line(something_to_show, creditguard, arguments):
    with Path("/dev/full").open("w") as full:
        done = creditguard(*arguments, stdout=full)
    assert (done.code, done.messages) == (
        74, ["creditguard: the answer cannot be written to stdout: No space left on device"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [("balance",), ("check", "--budget", "5"), ("history",), ("--help",)], ids=" ".join
)
def test_a_closed_stdout_is_74_and_one_line(something_to_show, creditguard, arguments):
    done = creditguard(*arguments, preexec_fn=lambda: os.close(1))
    assert (done.code, done.messages) == (
        74, ["creditguard: the answer cannot be written to stdout: stdout is closed"],
    )  # fmt: skip


@pytest.mark.parametrize("arguments", ANSWERS, ids=" ".join)
def test_a_reader_that_has_gone_is_141_and_silence(something_to_show, creditguard, arguments):
    read, write = os.pipe()
    os.close(read)
    done = creditguard(*arguments, stdout=write)
    os.close(write)
    assert (done.code, done.messages) == (141, [])


def test_systemd_does_not_take_a_full_disk_for_a_skip(gateway, creditguard):
    with Path("/dev/full").open("w") as full:
        assert creditguard("check", "--systemd", "--budget", 5, stdout=full).code == 255


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict"])
def test_what_stdout_cannot_encode_is_escaped(gateway, creditguard, encoding):
    with guard("nächtlich-早", budget=5):
        table = creditguard("holds", env={"PYTHONIOENCODING": encoding})
    assert table.code == 0
    assert "n\\xe4chtlich-\\u65e9" in table.stdout
    assert creditguard("history", env={"LC_ALL": "C", "PYTHONIOENCODING": encoding}).code == 0


EVIL = "\x1b]0;owned\x07\x1b[2J"


def test_no_escape_sequence_reaches_the_terminal(gateway, creditguard, tmp_path):
    """Ids, paths, values, labels, record lines, names in the ledger: whatever is shown of them is shown, and not obeyed."""
    job = tmp_path / f"{EVIL}.sh".replace("/", "")
    job.write_text(
        f"printf '{EVIL}\\n' >> \"$CREDITGUARD_RECORD_FILE\"\n".replace("\x1b", "\\033").replace("\x07", "\\007")
    )
    job.chmod(0o755)
    console = {"CREDITGUARD_LOG_FORMAT": "console", "NO_COLOR": "1"}
    for arguments in (
        ("holds", "release", EVIL),
        ("check", "--budget", EVIL),
        ("check", "--budget", "5", "--label", f"{EVIL}={EVIL}"),
        ("check", "--budget", "5", "--name", EVIL),
        ("check", "--budget", "5", "--account", EVIL),
        ("check", "--budget", "5", f"--{EVIL}"),
        (EVIL,),
        ("run", "--budget", "5", "--report-file", f"/{EVIL}/{EVIL}", "--", "true"),
        ("run", "--budget", "5", "--", EVIL),
        ("run", "--budget", "5", "--", job),
        ("holds", "--ledger", f"sqlite:///{tmp_path}/{EVIL}/{EVIL}"),
        ("history", "--name", EVIL),
        ("history", "--since", EVIL),
        ("history", "--by", "day", "--job", EVIL),
        ("suggest", "--job", EVIL),
        ("holds", "--job", EVIL),
    ):
        done = creditguard(*arguments, env=console)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr), arguments
    ledger = open_ledger(os.environ["CREDITGUARD_LEDGER"])
    report = ledger.history(limit=1)[0]
    ledger.settle("0" * 20, str(report["account"]), {**report, "run_id": EVIL, "job": EVIL, "outcome": EVIL})
    for command in (("history",), ("history", "--by", "job"), ("history", "--csv"), ("suggest",)):
        shown = creditguard(*command).stdout
        assert "\\x1b]0;owned\\x07" in shown
        assert "\x1b" not in shown


def test_equals_dashes_is_told(creditguard):
    for option in ("--label=--", "--name=--", "--budget=--"):
        done = creditguard("check", option)
        assert (done.code, len(done.messages)) == (64, 1)
        assert option.removesuffix("=--") in done.stderr


@pytest.mark.parametrize("descriptors", range(6, 20))
def test_too_few_file_descriptors(gateway, creditguard, descriptors):
    """Whatever cannot be opened: a code that is documented, no `bug`, no traceback, no hold left, and CMD's code if it ran."""

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    commands = (
        ("balance",),
        ("check", "--budget", 5),
        ("history", "--json"),
        ("run", "--budget", 5, "--", "sh", "-c", "exit 7"),
    )
    for arguments in (commands[descriptors % 3], commands[-1]):
        done = creditguard(*arguments, preexec_fn=limit)
        assert done.code in ({7, 69, 126} if arguments[0] == "run" else {0, 69}), (arguments, done.stderr)
        assert "bug" not in done.stderr
        assert len(done.messages) == (done.code in {69, 126})
    assert open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds() == []


def test_no_memory_is_no_bug():
    code = """
import sys
from creditguard.cli import main, version
def run(_):
    raise MemoryError
version.run = run
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code, "version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (69, "creditguard: the system lets us do no more: no memory is left\n")


INTERRUPTING = """
import os, signal, sys
class Finder:
    count = None
    def find_spec(self, name, path=None, target=None):
        if name == "creditguard.cli.exits":
            Finder.count = 0
        if Finder.count is not None:
            Finder.count += 1
            if Finder.count == AT or name == WHERE:
                ACT
sys.meta_path.insert(0, Finder())
"""
KILL = "os.kill(os.getpid(), signal.SIGINT)"
RAISE = "raise KeyboardInterrupt"


def interrupted(creditguard, folder, *arguments, act, at=None, where=None):
    code = INTERRUPTING.replace("AT", repr(at)).replace("WHERE", repr(where)).replace("ACT", act)
    (folder / "sitecustomize.py").write_text(code)
    return creditguard(*arguments, env={"PYTHONPATH": str(folder)})


@pytest.mark.parametrize("act", [KILL, RAISE])
@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 13, 21, 34, 55])
def test_interrupted_at_any_import(gateway, creditguard, tmp_path, act, at):
    done = interrupted(creditguard, tmp_path, "check", "--budget", 5, "--ledger", "none", act=act, at=at)
    assert (done.code, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("act", [KILL, RAISE])
@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("argparse", ("balance",)),
        ("creditguard.cli.check", ("check", "--systemd", "--budget", "5")),
        ("creditguard.cli.child", ("run", "--budget", "5", "--", "true")),
        ("creditguard.cli.sandbox", ("sandbox",)),
        ("sqlite3", ("holds",)),
    ],
)
def test_interrupted_while_a_command_is_loaded(gateway, creditguard, tmp_path, act, where, arguments):
    done = interrupted(creditguard, tmp_path, *arguments, act=act, where=where)
    assert (done.code, done.stdout, done.stderr) == (255 if "--systemd" in arguments else 130, "", "")


def test_interrupted_while_it_waits_for_an_answer(gateway):
    gateway.fault(delay=20, times=1)
    process = subprocess.Popen([*COMMAND, "balance"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while gateway.state()["faults"]:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert (*process.communicate(timeout=15), process.returncode) == ("", "", 130)
    gateway.clear_faults()


def test_main_leaves_the_handlers_of_a_program_alone(gateway, capsys):
    from creditguard.cli import main

    before = signal.getsignal(signal.SIGINT)
    assert main(["balance"]) == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr() == ("120\n", "")


def test_an_empty_ledger_is_told_beside_the_answer(gateway, creditguard):
    for command, message in (
        (("history",), "no run has ended yet"),
        (("history", "--name", "nightly"), "no run of nightly has ended yet"),
        (("holds",), "nothing is held"),
    ):
        done = creditguard(*command)
        assert (done.code, done.stdout, done.messages) == (0, "", [f"creditguard: {message}"])
        done = creditguard(*command, "--json")
        assert (done.code, json.loads(done.stdout), done.stderr) == (0, [], "")


def test_every_exit_code_is_documented_alike():
    text = (Path(__file__).parents[2] / "docs/shell.md").read_text()
    rows = re.findall(r"^\| ([0-9+N /]+|any other) \|", text, re.MULTILINE)
    documented = {code for row in rows for code in row.replace("any ", "").split(" / ")}
    assert documented == {code for code, _ in EXIT_CODES}
