"""What a job is called that nobody has named."""

from __future__ import annotations

import pytest

from creditguard.cli.naming import job_name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("batch", "batch"),
        ("/opt/jobs/nightly.sh", "nightly.sh"),
        ("./enrich.sh --fast input.csv", "enrich.sh"),
        ("python3 batch.py", "batch.py"),
        ("/usr/bin/python3.12 -u -W ignore -X dev jobs/batch.py --all", "batch.py"),
        ("python -m pkg.mod --x", "pkg.mod"),
        ("python -um pkg.mod", "pkg.mod"),
        ("python -c pass", "python"),
        ("python -Sc pass batch.py", "python"),
        ("python -", "python"),
        ("python", "python"),
        ("python -m", "python"),
        ("pypy3 batch.py", "batch.py"),
        ("sh nightly.sh", "nightly.sh"),
        ("bash -eu -o pipefail ./nightly.sh", "nightly.sh"),
        ("bash -lc ./nightly.sh", "bash"),
        ("sh -c exit", "sh"),
        ("node --max-old-space-size=4096 app.js", "app.js"),
        ("node -r dotenv/config app.js", "app.js"),
        ("node --eval 1 app.js", "node"),
        ("ruby -I lib batch.rb", "batch.rb"),
        ("perl -w batch.pl", "batch.pl"),
        ("perl -ne print input", "perl"),
        ("env python3 batch.py", "batch.py"),
        ("/usr/bin/env -i -u HOME A=1 B= python3 -m pkg.mod", "pkg.mod"),
        ("env -- A=1 nightly.sh", "nightly.sh"),
        ("env", "env"),
        ("env A=1", "env"),
        ("pythonic batch.py", "pythonic"),
        ("c", "c"),
        ("sh c", "c"),
        ("folder/", "folder"),
        ("/", "/"),
    ],
)
def test_by_what_it_runs(command, name):
    assert job_name(command.split(" ")) == name


def test_a_name_is_one_whatever_the_file_is_called():
    assert job_name(["./a\x1b[31m\n.sh"]) == "a\\x1b[31m\\n.sh"
    assert job_name(["./" + "x" * 250]) == "x" * 200
    assert job_name([" "]) == "unnamed"
    assert job_name([""]) == "unnamed"
    assert job_name(["python3", ""]) == "unnamed"


def test_the_wrapper_uses_it(gateway, creditguard, tmp_path):
    (tmp_path / "batch.py").write_text("")
    assert creditguard("run", "--budget", 5, "--", "python3", tmp_path / "batch.py").events[0]["job"] == "batch.py"
    assert creditguard("run", "--budget", 5, "--name", "mine", "--", "python3", "-c", "").events[0]["job"] == "mine"
