"""`creditguard sandbox`: for another shell, and for one command."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from creditguard.ledgers import open_ledger

COMMAND = [sys.executable, "-m", "creditguard", "sandbox"]
OWN_KEY = "sk-0123456789abcdef-of-my-own"
CREDITGUARD = f"{sys.executable} -m creditguard"


@pytest.fixture
def sandbox():
    """Start one for other shells; what it prints, as it comes."""
    started = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, "".join(process.stdout.readline() for _ in range(3))

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_both_exports_are_printed_and_lead_there(sandbox, creditguard):
    _, lines = sandbox("--credits", 77)
    *exports, unset = lines.splitlines()
    exports = dict(re.fullmatch(r"export (\w+)=(.*)", line).groups() for line in exports)
    assert (list(exports), unset) == (["CREDITGUARD_BASE_URL", "APIMALL_API_KEY"], "unset APIMALL_API_KEY_FILE")
    assert creditguard("balance", env=exports).stdout == "77\n"
    script = f'eval "$LINES"; {CREDITGUARD} balance'
    done = subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, "LINES": lines, "APIMALL_API_KEY_FILE": "/a/key"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("77\n", "")


def test_your_settings_file_is_not_for_the_sandbox(gateway, creditguard, tmp_path):
    """The one of the project, where it is tried out, is."""
    user = tmp_path / "config" / "creditguard" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("keep = 1000\naccount = 'production'\n")
    (tmp_path / "creditguard.toml").write_text("[jobs.nightly]\nbudget = 80\n")
    command = ["check", "--name", "nightly", "--json"]
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    outside = creditguard(*command, cwd=tmp_path, env=environment)
    inside = creditguard("sandbox", "--", sys.executable, "-m", "creditguard", *command, cwd=tmp_path, env=environment)
    assert (outside.code, json.loads(outside.stdout)["keep"]) == (75, 1000)
    shown = json.loads(inside.stdout)
    assert (inside.code, shown["budget"], shown["keep"]) == (0, 80, 0)
    assert shown["account"] != "production"


def test_your_own_key_is_neither_shown_nor_asked_for(sandbox):
    process, lines = sandbox(APIMALL_API_KEY=OWN_KEY)
    assert lines.count("export ") == 2
    assert OWN_KEY not in lines
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("code", [0, 7, 75, 255])
def test_a_command_runs_in_the_sandbox_and_its_code_is_ours(gateway, creditguard, code):
    """With its own balance, and stopped afterwards; the account, the ledger and the history outside know nothing of it."""
    script = (
        f'{CREDITGUARD} balance; {CREDITGUARD} run -q --budget 80 -- true; echo "$CREDITGUARD_BASE_URL"; exit {code}'
    )
    environment = {"CREDITGUARD_ACCOUNT": "production", "APIMALL_API_KEY_FILE": "/nowhere"}
    done = creditguard("sandbox", "--credits", 90, "--", "sh", "-c", script, env=environment)
    balance, url = done.stdout.split()
    assert (done.code, balance, done.stderr) == (code, "90", "")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)
    assert sum(gateway.requests.values()) == 0
    assert open_ledger(os.environ["CREDITGUARD_LEDGER"]).history() == []


def test_nothing_leads_out_of_the_sandbox(gateway, creditguard, tmp_path):
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    outside = {
        "CREDITGUARD_ACCOUNT": "production",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "no_proxy": "host",
        "NO_PROXY": "*",
        "TMPDIR": str(tmp_path),
    }
    done = creditguard("sandbox", "--", sys.executable, "-c", script, env=outside)
    inside = json.loads(done.stdout)
    assert inside["APIMALL_API_KEY"] != os.environ["APIMALL_API_KEY"]
    assert inside["CREDITGUARD_LEDGER"].startswith(f"sqlite:///{tmp_path}/creditguard-")
    assert not {"CREDITGUARD_ACCOUNT", "APIMALL_API_KEY_FILE"} & inside.keys()
    assert (inside["no_proxy"], inside["NO_PROXY"]) == ("host,127.0.0.1", "*")
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_cannot_be_run(creditguard):
    done = creditguard("sandbox", "--", "no-such-command-anywhere")
    assert (done.code, done.messages) == (
        127,
        ["creditguard: cannot run 'no-such-command-anywhere': No such file or directory"],
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_the_commands(number, tmp_path):
    script = f"import signal, sys, time; signal.signal({number:d}, lambda *_: sys.exit(9)); print('ready', flush=True); time.sleep(30)"
    process = subprocess.Popen(
        [*COMMAND, "--", sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 9
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "harm", ["rm -r $1; echo > $1", "mv $1 $1.away; ln -s / $1", "rm -r $1", "mkdir $1/a; chmod 0 $1/a"]
)
def test_whatever_becomes_of_its_folder_the_code_is_the_commands(creditguard, tmp_path, harm):
    script = f"set -- ${{CREDITGUARD_LEDGER#sqlite://}}; set -- ${{1%/*}}; {harm}; exit 7"
    done = creditguard("sandbox", "--", "sh", "-c", script, env={"TMPDIR": str(tmp_path)})
    assert (done.code, done.stderr) == (7, "")


def test_no_place_for_its_ledger(creditguard, tmp_path):
    """A full disk: no temporary folder takes a byte."""

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = creditguard("sandbox", "--", "true", preexec_fn=full)
    assert (done.code, len(done.messages)) == (78, 1)
    assert done.messages[0].startswith("creditguard: TMPDIR: no folder can be made for the sandbox: ")


def test_a_port_that_is_taken(gateway, creditguard):
    port = gateway.url.rpartition(":")[2]
    for command in ((), ("--", "true")):
        done = creditguard("sandbox", "--port", port, *command)
        assert (done.code, done.stdout, len(done.messages)) == (78, "", 1)
        assert f"--port {port} cannot be used: Address already in use" in done.stderr


def test_credits_that_cannot_be(creditguard):
    done = creditguard("sandbox", "--credits", "1.5", "--", "true")
    assert (done.code, done.messages) == (78, ["creditguard: --credits must be a whole number"])


def test_the_help_shows_the_way(creditguard):
    example = creditguard("help").stdout.splitlines()[-1].strip()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        example, shell=True, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "enough: needs 80 credits, has 120\n")


def test_killed_by_sigkill_it_leaves_no_folder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "creditguard", "sandbox", "--", "sh", "-c", "echo ready; sleep 60"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    assert len(list(tmp_path.glob("creditguard-*"))) == 1
    process.kill()
    process.communicate(timeout=20)  # until CMD, too, is gone
    assert list(tmp_path.glob("creditguard-*")) == []
