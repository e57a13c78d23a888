"""`creditguard report`: where it writes, what it needs, and what it says when something is in the way."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from past_runs import Past, refusal, report

PAGE = "<!DOCTYPE html>"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/past.db"


@pytest.fixture
def runs(url):
    """Runs of two jobs, one of them of long ago."""
    past = Past(url)
    past.file(report("old", 9), days_ago=40)
    past.file(report("thumbnails", 72), refusal("posters", 48))
    return past


def test_a_page_a_picture_and_stdout(creditguard, runs, url, tmp_path):
    for name, start in (("x.html", b"<!DOCTYPE html>"), ("x.PNG", b"\x89PNG"), ("x.svg", b"<svg")):
        done = creditguard("report", "--ledger", url, "-o", tmp_path / name)
        assert (done.code, done.stdout) == (0, "")
        assert done.stderr.startswith(f"creditguard: {tmp_path / name}: 2 runs since ")
        assert (tmp_path / name).read_bytes().startswith(start)
    done = creditguard("report", "--ledger", url, "-o", "-")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith(PAGE)
    assert "1 run of 1 job consumed 72 credits, and 1 was refused." in done.stdout
    assert not list(tmp_path.glob(".creditguard*"))


def test_the_page_is_utf_8_whatever_the_locale(creditguard, runs, url):
    done = creditguard("report", "--ledger", url, "-o", "-", env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert " · account ours · times in " in done.stdout


def test_of_one_job_and_since_when(creditguard, runs, url):
    done = creditguard("report", "--ledger", url, "-o", "-", "--job", "old", "--since", "60d")
    assert "1 run of 1 job consumed 9 credits." in done.stdout
    assert "thumbnails" not in done.stdout
    done = creditguard("report", "--ledger", url, "-o", "-", "--account", "nobody's")
    assert done.code == 0
    assert "No run ended in this time." in done.stdout


def test_from_every_ledger(creditguard, past):
    past.file(report("thumbnails", 72), refusal("posters", 48))
    done = creditguard("report", "-o", "-")
    assert (done.code, done.stderr) == (0, "")
    assert "1 run of 1 job consumed 72 credits, and 1 was refused." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "x.pdf"], 64, "argument -o/--output: it must end with .html, .png or .svg, or be '-' for stdout, not 'x.pdf'"),
        (["-o", ""], 64, "argument -o/--output: it is empty"),
        (["-o", "nowhere/x.html"], 78, "-o: there is no directory nowhere"),
        (["-o", "folder.html"], 78, "-o: folder.html is a directory: name a file in it"),
        (["-o", f"{'x' * 300}.html"], 78, "-o: "),
        (["--ledger", "none"], 78, "--ledger is none, which remembers nothing: name a ledger"),
        (["--since", "the flood"], 64, "argument --since: it must be a time ago such as 12h or 7d, or a date"),
        (["--ledger", "sqlite:////proc/nothing/x.db"], 69, ""),
        (["-o", "/dev/full"], 74, "-o: /dev/full cannot be written: No space left on device"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_leaves_nothing_behind(
    creditguard, runs, url, tmp_path, arguments, code, message
):
    place = tmp_path / "place"
    (place / "folder.html").mkdir(parents=True)
    done = creditguard("report", "--ledger", url, *arguments, cwd=place)
    assert (done.code, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"creditguard: {message}")
    assert [path.name for path in place.iterdir()] == ["folder.html"]


def test_a_full_disk_behind_stdout(creditguard, runs, url):
    with Path("/dev/full").open("w") as full:
        done = creditguard("report", "--ledger", url, "-o", "-", stdout=full)
    assert (done.code, done.stderr.count("\n")) == (74, 1)


def test_a_disk_that_is_full_half_way_keeps_the_page_of_yesterday(runs, url, tmp_path):
    page = tmp_path / "x.html"
    page.write_text("yesterday's")
    command = f'ulimit -f 100; exec "{sys.executable}" -m creditguard report --ledger "{url}" -o "{page}"'
    done = subprocess.run(["sh", "-c", f"trap '' XFSZ; {command}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 74, done.stderr
    assert done.stderr == f"creditguard: -o: {page} cannot be written: File too large\n"
    assert page.read_text() == "yesterday's"
    assert not list(tmp_path.glob(".creditguard*"))


def test_no_thread(creditguard, runs, url, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        """
import threading
def start(_):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
"""
    )
    done = creditguard("report", "--ledger", url, "-o", tmp_path / "x.html", env={"PYTHONPATH": str(tmp_path)})
    assert (done.code, done.stderr) == (69, "creditguard: the system lets us do no more: can't start new thread\n")


def test_without_docstrings(creditguard, runs, url, tmp_path):
    done = creditguard("report", "--ledger", url, "-o", tmp_path / "x.html", env={"PYTHONOPTIMIZE": "2"})
    assert (done.code, len(done.messages)) == (78, 1)
    assert "PYTHONOPTIMIZE" in done.stderr


@pytest.mark.parametrize("form", ["html", "png"])
@pytest.mark.parametrize("descriptors", [8, 13, 14])
def test_too_few_file_descriptors(creditguard, runs, url, tmp_path, descriptors, form):
    """Of which vl-convert makes a panic."""

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    done = creditguard("report", "--ledger", url, "-o", tmp_path / f"x.{form}", preexec_fn=limit)
    assert (done.code, done.stderr.count("\n")) == (69, 1), done.stderr
    assert "Too many open files" in done.stderr


def test_the_usual_name_replaces_our_page_and_nobody_elses(creditguard, runs, url, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    assert creditguard("report", "--ledger", url, cwd=place).code == 0
    assert creditguard("report", "--ledger", url, cwd=place).code == 0
    (place / "report.html").write_text("coverage of somebody's tests")
    done = creditguard("report", "--ledger", url, cwd=place)
    assert done.code == 78
    assert done.stderr == "creditguard: report.html is there already, and no report of ours: say where to by -o FILE\n"
    assert (place / "report.html").read_text() == "coverage of somebody's tests"


def test_without_the_extra_it_is_named(creditguard, runs, url, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['vl_convert'] = None")
    done = creditguard("report", "--ledger", url, "-o", tmp_path / "x.html", env={"PYTHONPATH": str(tmp_path)})
    assert done.stderr == "creditguard: report needs vl-convert-python: pip install 'creditguard[report]'\n"
    assert done.code == 78
    assert not (tmp_path / "x.html").exists()
