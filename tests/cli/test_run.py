"""`creditguard run -- CMD` with real processes: whose exit code, whose output, whose signals, and what the report says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import eventually, state

from creditguard import guard
from creditguard.ledgers import open_ledger

RUN = [sys.executable, "-m", "creditguard", "run", "--budget", "80", "--name", "job"]
PYTHON = sys.executable


def holds():
    return open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds()


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.json"
    return path, lambda: json.loads(path.read_text())


def kill_self(number):
    return f"import os, signal, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {int(number)})"


@pytest.mark.parametrize(
    ("command", "code", "outcome"),
    [
        (["true"], 0, "succeeded"),
        ([PYTHON, "-c", "raise SystemExit(7)"], 7, "failed"),
        ([PYTHON, "-c", "raise SystemExit(255)"], 255, "failed"),
        ([PYTHON, "-c", "raise SystemExit(75)"], 75, "failed"),
        ([PYTHON, "-c", kill_self(signal.SIGTERM)], 143, "cancelled"),
        ([PYTHON, "-c", kill_self(signal.SIGKILL)], 137, "cancelled"),
        ([PYTHON, "-c", kill_self(signal.SIGSEGV)], 139, "cancelled"),
        (["/nowhere/such-command"], 127, "failed"),
        (["no-such-command-anywhere"], 127, "failed"),
        (["/etc/passwd"], 126, "failed"),
        (["/"], 126, "failed"),
    ],
    ids=["0", "7", "255", "75 of its own", "TERM", "KILL", "SEGV", "path not found", "name not found", "not executable", "directory"],
)  # fmt: skip
def test_the_commands_own_code_comes_through(gateway, creditguard, report, command, code, outcome):
    path, read = report
    done = creditguard("run", "--budget", 80, "--name", "job", "--report-file", path, "--", *command)
    assert (done.code, done.stdout) == (code, "")
    assert done.names == ["admitted", "finished"]
    assert (read()["stage"], read()["exit_code"], read()["outcome"]) == ("command", code, outcome)
    assert holds() == []


def test_short_is_75_and_the_commands_first_instruction_never_ran(gateway, creditguard, report, tmp_path):
    path, read = report
    done = creditguard("run", "--budget", 500, "--report-file", path, "--", "touch", tmp_path / "ran")
    assert (done.code, done.stdout) == (75, "")
    assert not (tmp_path / "ran").exists()
    assert (read()["stage"], read()["exit_code"], read()["outcome"], read()["error"]) == (
        "preflight", 75, "refused", "InsufficientCredits",
    )  # fmt: skip
    assert read()["shortfall"] == 380
    assert creditguard("run", "--budget", 500, "--short-code", 99, "--", "true").code == 99


@pytest.mark.parametrize(("status", "code"), [(401, 77), (403, 77), (404, 69), (500, 69)])
def test_unreadable_is_its_own_code_and_nothing_runs(gateway, creditguard, report, tmp_path, status, code):
    path, read = report
    gateway.fault(status=status)
    done = creditguard(
        "run", "--budget", 5, "--report-file", path, "--", "touch", tmp_path / "ran", env={"CREDITGUARD_TIMEOUT": "1"}
    )
    assert done.code == code
    assert not (tmp_path / "ran").exists()
    assert (read()["stage"], read()["outcome"], read()["exit_code"]) == ("preflight", "refused", code)


def test_no_key_is_78_and_reported(gateway, creditguard, report):
    path, read = report
    done = creditguard("run", "--budget", 5, "--report-file", path, "--", "true", env={"APIMALL_API_KEY": None})
    assert done.code == 78
    assert (read()["stage"], read()["error"]) == ("preflight", "ConfigurationError")


@pytest.mark.parametrize("status", [401, 500])
def test_an_exit_that_cannot_be_read_leaves_the_code_alone(gateway, creditguard, report, status):
    path, read = report
    gateway.fault(status=status, skip=1)
    done = creditguard(
        "run", "--budget", 5, "--report-file", path, "--", "sh", "-c", "exit 7", env={"CREDITGUARD_TIMEOUT": "3"}
    )
    assert done.code == 7
    assert done.names == ["admitted", "unreadable", "finished"]
    assert (read()["basis"], read()["credits_consumed"]) == ("unknown", None)


def test_warn_mode_runs_although_short(gateway, creditguard):
    done = creditguard("run", "--budget", 500, "--on-short", "warn", "--", "echo", "ran")
    assert (done.code, done.stdout) == (0, "ran\n")
    assert done.names == ["short", "finished"]


def test_the_command_knows_its_run_and_can_say_what_it_spent(gateway, creditguard):
    script = f'echo "$CREDITGUARD_RUN_ID $CREDITGUARD_BUDGET"; {PYTHON} -m creditguard record 8; echo 4.5 >> "$CREDITGUARD_RECORD_FILE"'
    done = creditguard("run", "--budget", 80, "--", "sh", "-c", script)
    finished = done.events[-1]
    assert done.stdout == f"{finished['run_id']} 80\n"
    assert (finished["credits_recorded"], finished["basis"]) == (12.5, "recorded")


def test_what_is_no_amount_in_the_record_file_is_told_and_passed_over(gateway, creditguard):
    done = creditguard("run", "--budget", 80, "--", "sh", "-c", 'printf "8\\nlots\\n" >> "$CREDITGUARD_RECORD_FILE"')
    assert done.events[-1]["credits_recorded"] == 8
    assert done.messages == ["creditguard: CREDITGUARD_RECORD_FILE: not an amount of credits: lots"]


def test_record_outside_of_a_run_is_78(creditguard):
    done = creditguard("record", 5)
    assert done.code == 78
    assert "CREDITGUARD_RECORD_FILE" in done.stderr


def test_parallel_records_all_count(gateway, creditguard):
    script = f"for i in 1 2 3 4 5 6 7 8; do {PYTHON} -m creditguard record 1 & done; wait"
    assert creditguard("run", "--budget", 80, "--", "sh", "-c", script).events[-1]["credits_recorded"] == 8


def test_stdin_is_the_commands_own(gateway):
    done = subprocess.run([*RUN, "--", "cat"], input=b"\x00\xff through", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"\x00\xff through")


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(gateway, redirections):
    command = f"{' '.join(RUN)} -- sh -c 'exit 5' {redirections}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert holds() == []


def test_a_reader_that_has_gone_ends_the_command_as_without_us(gateway):
    command = f"{' '.join(RUN)} -q -- sh -c 'yes; echo $? >&2' | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.stdout == "y\n"
    assert "Traceback" not in done.stderr
    assert holds() == []


def test_a_full_disk_under_stderr_costs_nothing(gateway, creditguard):
    with Path("/dev/full").open("w") as full:
        assert creditguard("run", "--budget", 80, "--", "sh", "-c", "exit 5", stderr=full).code == 5


TRAPS = "import signal, sys, time\nsignal.signal(signal.{0}, lambda *_: sys.exit({1}))\nprint('ready', flush=True)\ntime.sleep(30)"


def start(*command, **more):
    process = subprocess.Popen([*RUN, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_to_the_wrapper_are_the_commands(gateway, report, name):
    path, read = report
    process = start("--report-file", path, "--", PYTHON, "-c", TRAPS.format(name, 9))
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    assert process.returncode == 9
    assert "creditguard.finished" in err
    assert read()["outcome"] == "cancelled"
    assert holds() == []


def test_sigterm_to_the_wrapper_of_a_command_that_does_not_care(gateway, report):
    path, read = report
    process = start("--report-file", path, "--", "sh", "-c", "echo ready; exec sleep 30")
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert read()["exit_code"] == 143
    assert holds() == []


IGNORES = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(30)"
)


def test_kill_after_ends_what_ignores_sigterm(gateway):
    process = start("--kill-after", "0.3s", "--", PYTHON, "-c", IGNORES)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 137


def test_sigkill_to_the_wrapper_leaves_no_command_and_no_hold(gateway):
    process = subprocess.Popen([*RUN, "--", "sh", "-c", "echo $$; exec sleep 30"], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    process.kill()
    process.wait(timeout=10)
    process.stdout.close()
    eventually(lambda: state(pid) in {"", "Z"})
    began = time.monotonic()
    with guard("next", budget=80):
        pass
    assert time.monotonic() - began < 10  # and not as long as a lease


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_the_preflight_runs_nothing(gateway, report, tmp_path, number):
    path, read = report
    gateway.fault(delay=20, times=1)
    process = subprocess.Popen(
        [*RUN, "--report-file", path, "--", "touch", tmp_path / "ran"], stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: not gateway.state()["faults"])  # taken up: the request is there
    process.send_signal(number)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert not (tmp_path / "ran").exists()
    assert read()["stage"] == "preflight"
    assert holds() == []
    gateway.clear_faults()


def test_a_signal_during_the_exit_reading_cuts_it_short(gateway, report):
    path, read = report
    gateway.fault(delay=20, skip=1, times=1)
    process = subprocess.Popen(
        [*RUN, "--report-file", path, "--", "sh", "-c", "exit 7"], stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: not gateway.state()["faults"])
    began = time.monotonic()
    process.terminate()
    _, err = process.communicate(timeout=15)
    assert time.monotonic() - began < 5
    assert process.returncode == 7
    assert "Traceback" not in err
    assert read()["balance_after"] is None
    assert holds() == []
    gateway.clear_faults()


def test_two_at_once_on_an_account_that_fits_one(gateway, tmp_path):
    """50 tries: exactly one runs, the other is refused, and its command's first instruction never ran."""

    def attempt(name):
        command = ["sh", "-c", f"echo ran >> {tmp_path}/{name}; sleep 1"]
        return subprocess.run([*RUN, "-q", "--", *command], capture_output=True, timeout=60).returncode

    with ThreadPoolExecutor(2) as pool:
        for number in range(int(os.environ.get("CREDITGUARD_TRIES", "5"))):
            names = [f"{number}-a", f"{number}-b"]
            codes = list(pool.map(attempt, names))
            assert sorted(codes) == [0, 75]
            assert [(tmp_path / name).exists() for name in names] == [code == 0 for code in codes]


def test_wait_holds_on_until_the_budget_fits(gateway, creditguard, tmp_path):
    gateway.set_credits(10)
    gateway.schedule(top_up=110, at_reading=3)
    done = creditguard("run", "--budget", 80, "--wait", "30s", "--interval", "0.2s", "--", "echo", "ran")
    assert (done.code, done.stdout) == (0, "ran\n")
    assert done.names == ["waiting", "admitted", "finished"]


def test_wait_gives_up(gateway, creditguard):
    done = creditguard("run", "--budget", 500, "--wait", "0.5s", "--interval", "0.2s", "--", "echo", "ran")
    assert (done.code, done.stdout) == (75, "")
    assert done.names[-1] == "refused"
    done = creditguard("wait", "--budget", 500, "--timeout", "0.5s", "--interval", "0.2s")
    assert done.code == 75
    assert done.names[-1] == "refused"
    assert done.messages[-1].startswith("creditguard: gave up: wait: needs 500")


def test_wait_command(gateway, creditguard):
    gateway.set_credits(10)
    gateway.schedule(top_up=110, at_reading=3)
    done = creditguard("wait", "--budget", 80, "--timeout", "30s", "--interval", "0.2s")
    assert (done.code, done.stdout) == (0, "")
    assert done.names == ["waiting", "admitted"]


def test_wait_does_not_wait_for_a_rejected_key(gateway, creditguard):
    gateway.fault(status=401)
    done = creditguard("wait", "--budget", 80, "--timeout", "30s")
    assert done.code == 77
    assert done.seconds < 10


def test_wait_honours_retry_after(gateway, creditguard):
    gateway.fault(status=429, headers={"Retry-After": "3600"})
    done = creditguard("wait", "--budget", 80, "--timeout", "30s", "--interval", "0.2s")
    assert done.code == 69
    assert gateway.requests["/api/v1/account/balances"] == 1
    assert done.seconds < 10


def test_holds_and_history(gateway, creditguard):
    assert creditguard("holds").stdout == ""
    with guard("nightly", budget="12.5", labels={"team": "data"}) as run:
        (row,) = json.loads(creditguard("holds", "--json").stdout)
        assert (row["run_id"], row["job"], row["credits"], row["pid"]) == (run.id, "nightly", 12.5, os.getpid())
        table = creditguard("holds", "list").stdout.splitlines()
        assert {name.lower() for name in table[0].split()} == row.keys() - {"labels"}
        assert table[0].split() == ["RUN_ID", "JOB", "ACCOUNT", "CREDITS", "SINCE", "LEASE_ENDS", "HOST", "PID"]
        assert table[1].startswith(f"{run.id}  nightly")
        assert creditguard("holds", "release", "nobody").code == 78
        assert creditguard("holds", "release", run.id).stdout == f"released {run.id}\n"
        assert creditguard("holds").stdout == ""
    (entry,) = json.loads(creditguard("history", "--json").stdout)
    assert (entry["run_id"], entry["job"], entry["outcome"]) == (run.id, "nightly", "succeeded")
    table = creditguard("history", "--name", "nightly").stdout.splitlines()
    assert table[0].split()[:3] == ["FINISHED", "JOB", "OUTCOME"]
    assert table[1].endswith(run.id)
    assert creditguard("history", "--name", "other").stdout == ""


def test_ledger_init(gateway, creditguard, tmp_path):
    path = tmp_path / "ledger.db"
    done = creditguard("ledger", "init", "--ledger", f"sqlite:///{path}")
    assert (done.code, done.stdout) == (0, "the sqlite ledger is ready\n")
    assert path.exists()
    assert creditguard("ledger", "init", "--ledger", f"sqlite:///{tmp_path}").code == 69
    missing = creditguard("ledger", "init", "--ledger", f"sqlite:///{tmp_path}/new/ledger.db")
    assert (missing.code, f"there is no folder {tmp_path}/new" in missing.stderr) == (69, True)


FAST = {"CREDITGUARD_MIN_INTERVAL": "0.05"}
SPEND = f"{PYTHON} {Path(__file__).parents[2]}/examples/spend.py"


def test_thresholds_while_the_command_runs(gateway, creditguard):
    script = f"{SPEND} 9; sleep 1"
    done = creditguard(
        "run", "--budget", 80, "--watch", "0.1s", "--threshold", "50%", "--", "sh", "-c", script, env=FAST
    )
    assert done.code == 0
    assert done.names == ["admitted", "threshold", "finished"]
    assert done.events[1]["threshold"] == 0.5


RUNAWAY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("cleaned up", flush=True), sys.exit(CODE)))
grandchild = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(60)"])
print(grandchild.pid, flush=True)
sys.path.insert(0, EXAMPLES)
from apimall import client, generate
with client() as api:
    while True: generate(api, "more"); time.sleep(0.05)
""".replace("EXAMPLES", repr(str(Path(__file__).parents[2] / "examples")))


@pytest.mark.parametrize("code", [0, 5])
def test_a_runaway_command_is_stopped_with_its_grandchildren(gateway, creditguard, report, code):
    path, read = report
    gateway.set_credits(100_000)
    began = time.monotonic()
    done = creditguard(
        "run", "--budget", 30, "--watch", "0.2s", "--on-overrun", "stop", "--kill-after", "0.5s", "--report-file", path,
        "--", PYTHON, "-c", RUNAWAY.replace("CODE", str(code)), env=FAST,
    )  # fmt: skip
    assert time.monotonic() - began < 15
    pid, cleaned = done.stdout.split("\n")[:2]
    assert cleaned == "cleaned up"
    assert done.code == (code or 143)
    assert "overrun" in done.names
    assert (read()["stopped"], read()["over_budget"]) == (True, True)
    eventually(lambda: state(pid) in {"", "Z"})
    assert holds() == []


def test_a_runaway_that_is_only_warned_about_is_left_alone(gateway, creditguard):
    gateway.set_credits(1000)
    done = creditguard(
        "run", "--budget", 30, "--watch", "0.1s", "--", "sh", "-c", f"{SPEND} 9; sleep 1; exit 3", env=FAST
    )
    assert done.code == 3
    assert done.names[-1] == "finished"
    assert done.names.count("overrun") == 1
    assert done.events[-1]["over_budget"] is True
    assert done.events[-1]["outcome"] == "failed"


def test_what_is_recorded_counts_while_the_command_runs(gateway, creditguard):
    script = f"{PYTHON} -m creditguard record 50; sleep 60"
    done = creditguard("run", "--budget", 30, "--watch", "30s", "--on-overrun", "stop", "--", "sh", "-c", script)
    assert done.code == 143
    assert done.seconds < 20
    assert done.events[-1]["credits_recorded"] == 50


def test_the_account_may_be_protected(gateway, creditguard):
    done = creditguard(
        "run",
        "--budget",
        100,
        "--watch",
        "0.1s",
        "--stop-below",
        60,
        "--",
        "sh",
        "-c",
        f"{SPEND} 9; sleep 60",
        env=FAST,
    )
    assert done.code == 143
    assert done.seconds < 20
