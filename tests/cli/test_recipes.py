"""docs/shell.md: each recipe for which this machine has the tool is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELL = (ROOT / "docs/shell.md").read_text()


@pytest.fixture
def shell(gateway, tmp_path):
    """Run a script with creditguard on the path; jobs say which part they were, in `ran`."""
    for name in ("part.sh", "enrich.sh", "nightly.sh", "start-everything"):
        (tmp_path / name).write_text('#!/bin/sh\necho "${1-ran}" >> ran\nsleep 0.2\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "parts.txt").write_text("".join(f"{number}\n" for number in range(8)))

    def run(script, name="sh"):
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return subprocess.run(
            [name, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
        )

    run.folder = tmp_path
    return run


def section(title, language):
    text = SHELL.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


def needs(tool):
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed here")


@needs("flock")
def test_cron_with_flock(shell):
    line = section("cron", "cron").strip().splitlines()[-1].split("  ", 1)[1]
    line = line.replace("/run/lock/nightly", "lock").replace("/opt/jobs", ".").replace("500", "50")
    done = shell(line)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (shell.folder / "ran").read_text() == "ran\n"
    done = shell(line.replace("--budget 50", "--budget 500"))
    assert done.returncode == 75
    assert "creditguard.refused" in done.stderr


@needs("systemd-analyze")
def test_the_systemd_unit_is_valid(tmp_path):
    unit = tmp_path / "nightly.service"
    command = Path(sys.executable).parent / "creditguard"
    text = section("systemd", "ini").replace("=creditguard ", f"={command} ")
    job = tmp_path / "nightly.sh"
    job.write_text("#!/bin/sh\n")
    job.chmod(0o755)
    unit.write_text(text.replace("/opt/jobs/nightly.sh", str(job)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "nightly" in line]) == (0, []), done.stderr


@needs("make")
def test_make(shell):
    (shell.folder / "Makefile").write_text(section("Make", "make"))
    done = shell("make enrich")
    assert done.returncode == 0, done.stderr
    assert (shell.folder / "ran").read_text() == "ran\n"
    (shell.folder / "ran").unlink()
    assert shell("sed -i 's/80/800/' Makefile; make enrich").returncode == 0
    assert not (shell.folder / "ran").exists()
    assert shell("sed -i 's/ || .*//' Makefile; make enrich").returncode == 2


@needs("xargs")
def test_xargs_runs_the_parts_that_fit(shell):
    line = section("xargs and GNU parallel", "sh").splitlines()[0]
    done = shell(line)
    assert done.returncode == 0, done.stderr
    assert sorted((shell.folder / "ran").read_text().split()) == [str(number) for number in range(8)]
    done = shell(line.replace("--budget 20", "--budget 500"))
    assert done.returncode == 123


@needs("parallel")
def test_gnu_parallel(shell):
    line = section("xargs and GNU parallel", "sh").splitlines()[1]
    done = shell(line)
    assert done.returncode == 0, done.stderr
    assert sorted((shell.folder / "ran").read_text().split()) == [str(number) for number in range(8)]


def test_waiting(shell):
    first = section("Waiting", "sh").splitlines()[0]
    assert shell(first).returncode == 0
    assert (shell.folder / "ran").read_text() == "ran\n"


def test_trying_things_out(shell):
    assert shell(section("Trying things out", "sh")).returncode == 0
    assert (shell.folder / "ran").read_text() == "ran\n"


def test_github_actions(shell):
    script = re.search(r"run: \|\n((?:    .*\n)+)", section("GitHub Actions", "yaml"))[1]
    for budget, said, code in (("50", "sufficient=true\n", 0), ("500", "sufficient=false\n", 0), ("x", "", 64)):
        out = shell.folder / "output"
        out.write_text("")
        done = shell(f"set -e; GITHUB_OUTPUT={out}\n{script.replace('500', budget)}", "bash")
        assert (done.returncode, out.read_text()) == (code, said), done.stderr
