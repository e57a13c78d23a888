"""What cannot be used is told in one line that names the flag, variable or field; 64 or 78; nothing runs, nothing is asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

RUN = ("run", "--budget", "5")
KEY = "sk-0123456789abcdef"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("check", "--budget", "-1"), "--budget"),
        (("check", "--budget", "nan"), "--budget"),
        (("check", "--budget", "inf"), "--budget"),
        (("check", "--budget", "True"), "--budget"),
        (("check", "--budget", "12x"), "--budget"),
        (("check", "--budget", ""), "--budget"),
        (("check", "--budget"), "--budget"),
        (("check", "--budget", "5", "--keep", "some"), "--keep"),
        (("check", "--budget", "5", "--on-short", "explode"), "--on-short"),
        (("check", "--budget", "5", "--short-code", "256"), "--short-code"),
        (("check", "--budget", "5", "--label", "team"), "--label"),
        (("check", "--budget", "5", "--frobnicate"), "--frobnicate"),
        (("check", "--budget", "5", "--", "true"), "true"),
        (("record", "--", "nan"), "not 'nan'"),
        (("extend", "--", "-5"), "not '-5'"),
        (("frobnicate",), "frobnicate"),
        (RUN, "command"),
        ((*RUN, "--"), "command"),
        ((*RUN, "--settle", "soon", "--", "true"), "--settle"),
        ((*RUN, "--kill-after", "-1", "--", "true"), "--kill-after"),
        ((*RUN, "--key", "x", "--", "true"), "--key"),
        ((*RUN, "--report-file", "", "--", "true"), "--report-file: it is empty"),
        (("check", "--budget", "5", "--ledger", ""), "--ledger: it is empty"),
        (("history", "--job", ""), "--job/--name: it is empty"),
        (("wait", "--budget", "5", "--timeout", "an hour"), "--timeout"),
        (("holds", "release"), "ID"),
        (("holds", "frob"), "frob"),
        (("holds", "list", "an-id"), "holds list takes no ID"),
        ((*RUN, "--threshold", "0", "--", "true"), "--threshold: it must be more than 0"),
        ((*RUN, "--threshold", "20000%", "--", "true"), "--threshold: it must be more than 0 and at most 100"),
        (("history", "--limit", "0"), "--limit"),
        (("record", "lots"), "N"),
        (("sandbox", "--port", "99999"), "--port"),
    ],
)
def test_usage_is_64(gateway, creditguard, arguments, named):
    done = creditguard(*arguments)
    assert (done.code, done.stdout) == (64, "")
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert sum(gateway.requests.values()) == 0


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"APIMALL_API_KEY": None}, "APIMALL_API_KEY"),
        ({"APIMALL_API_KEY": ""}, "APIMALL_API_KEY"),
        ({"APIMALL_API_KEY": f"{KEY}\n{KEY}"}, "APIMALL_API_KEY"),
        ({"APIMALL_API_KEY": f"{KEY} {KEY}"}, "APIMALL_API_KEY"),
        ({"APIMALL_API_KEY": None, "APIMALL_API_KEY_FILE": "/nowhere/key"}, "APIMALL_API_KEY_FILE"),
        ({"APIMALL_API_KEY": None, "APIMALL_API_KEY_FILE": "/"}, "APIMALL_API_KEY_FILE"),
        ({"CREDITGUARD_BASE_URL": "gateway.apimall.ai"}, "CREDITGUARD_BASE_URL"),
        ({"CREDITGUARD_BASE_URL": "http://gateway.apimall.ai"}, "CREDITGUARD_BASE_URL"),
        ({"CREDITGUARD_BASE_URL": "https://me:hush@gateway.apimall.ai"}, "CREDITGUARD_BASE_URL"),
        ({"CREDITGUARD_BASE_URL": "ftp://gateway.apimall.ai"}, "CREDITGUARD_BASE_URL"),
        ({"CREDITGUARD_BASE_URL": "https://gateway.apimall.ai?key=hush"}, "CREDITGUARD_BASE_URL"),
        ({"CREDITGUARD_TIMEOUT": "0"}, "CREDITGUARD_TIMEOUT"),
        ({"CREDITGUARD_TIMEOUT": "soon"}, "CREDITGUARD_TIMEOUT"),
        ({"CREDITGUARD_LEDGER": "mysql://me:hush@host/db"}, "CREDITGUARD_LEDGER"),
        ({"CREDITGUARD_ON_SHORT": "explode"}, "CREDITGUARD_ON_SHORT"),
        ({"CREDITGUARD_ON_UNREADABLE": "explode"}, "CREDITGUARD_ON_UNREADABLE"),
        ({"CREDITGUARD_KEEP": "some"}, "CREDITGUARD_KEEP"),
        ({"CREDITGUARD_SETTLE": "-3"}, "CREDITGUARD_SETTLE"),
        ({"CREDITGUARD_LOG_FORMAT": "xml"}, "CREDITGUARD_LOG_FORMAT"),
        ({"CREDITGUARD_ACCOUNT": "two\nlines"}, "CREDITGUARD_ACCOUNT"),
    ],
)
@pytest.mark.parametrize("arguments", [("check", "--budget", "5"), ("run", "--budget", "5", "--", "touch", "ran")])
def test_configuration_is_78(gateway, creditguard, tmp_path, arguments, environment, named):
    done = creditguard(*arguments, env=environment, cwd=tmp_path)
    assert (done.code, done.stdout) == (78, "")
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert "hush" not in done.stderr
    assert KEY not in done.stderr
    assert list(tmp_path.glob("ran")) == []
    assert sum(gateway.requests.values()) == 0


def test_no_budget_is_78(gateway, creditguard, tmp_path):
    done = creditguard("run", "--name", "nightly", "--", "true", cwd=tmp_path)
    assert done.code == 78
    assert "budget" in done.stderr
    assert "[jobs.nightly]" in done.stderr


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".", "directory"),
        ("new/", "directory"),
        ("new/.", "directory"),
        ("no/report.json", "no is not a directory"),
        ("file/report.json", "Not a directory"),
        ("socket", "socket"),
        ("/proc/report.json", "/proc is not a directory that can be written to" if os.getuid() else "No such file"),
        ("/dev/fd/0", "reading only"),
        ("/dev/stdin", "reading only"),
        ("/dev/fd/99", "Bad file descriptor"),
        ("/dev/tty", "No such device"),
        ("x" * 300, "too long"),
    ],
)
def test_an_unwritable_report_file_is_told_before_the_job(gateway, creditguard, tmp_path, monkeypatch, path, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as a_socket:
        a_socket.bind("socket")
    arguments = ("run", "--budget", 5, "--report-file", path, "--", "touch", "ran")
    with Path(os.devnull).open("rb") as for_reading:
        done = creditguard(*arguments, stdin=for_reading, start_new_session=True)
    assert (done.code, done.events) == (78, [])
    (message,) = done.messages
    assert "--report-file" in message
    assert reason in message
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "socket"]


def test_a_report_file_in_a_folder_that_is_gone_is_told_before_the_job(gateway, creditguard, tmp_path):
    (tmp_path / "gone").mkdir()
    script = 'rmdir "$PWD"; "$@"'
    me = (sys.executable, "-m", "creditguard", "run", "--budget", "5", "--report-file", "x", "--", "touch", "../ran")
    done = subprocess.run(["sh", "-c", script, "sh", *me], cwd=tmp_path / "gone", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (78, "creditguard: --report-file: x: No such file or directory\n")


def test_empty_arguments_of_a_command_are_its_own(gateway, creditguard):
    for dashes in ((), ("--",)):
        assert creditguard("run", "--budget", 5, *dashes, "printf", "<%s>", "", "x").stdout == "<><x>"


def test_a_bug_is_70_and_one_line(gateway, creditguard, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import creditguard.settings as s\ns.current = lambda: 1 / 0\n")
    done = creditguard("balance", env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 70
    assert done.stderr == (
        "creditguard: a bug in creditguard: ZeroDivisionError: division by zero (CREDITGUARD_DEBUG=1 shows where)\n"
    )
