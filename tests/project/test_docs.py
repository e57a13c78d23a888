"""The documents say what is true: their examples are run, their tables are held against the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

from creditguard import guard
from creditguard.ledgers import open_ledger

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readmes_python_runs(credit_gateway, capsys):
    (block,) = blocks(README, "python")

    def enrich(row):
        credit_gateway.drain(8)
        return SimpleNamespace(credits_used=8)

    names = {"rows": [1, 2, 3], "enrich": enrich}
    exec(compile(block, "README.md", "exec"), names)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "24 recorded"
    assert out[1].startswith("too-much: needs 5000 credits, 96 are free (96 on the account)")


@pytest.fixture
def shell(credit_gateway, tmp_path):
    """Run a block in a home whose key file has the key, beside a batch."""
    (tmp_path / "batch.py").write_text("print('ran')")
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config/apimall.key").write_text(credit_gateway.key)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": path}
    del environment["APIMALL_API_KEY"]

    def run(block, more=None):
        return subprocess.run(
            ["sh", "-euc", block], cwd=tmp_path, env=environment | (more or {}), capture_output=True, text=True, timeout=60
        )  # fmt: skip

    return run


def test_the_readmes_shell_runs(shell):
    done = shell(blocks(README, "sh")[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["120", "enough: needs 80 credits, has 120", "enough", "ran"]


def test_the_readmes_event_has_real_fields():
    schema = json.loads(files("creditguard").joinpath("events.schema.json").read_text())
    (block,) = blocks(README, "json")
    assert set(json.loads(block)) <= set(schema["$defs"]["finished"]["properties"])


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert len(README.splitlines()) < 120
    for page in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


EXECUTED = {
    "airflow": "tests/airflow/dags",
    "concepts": "here",
    "engines": "tests/engines",
    "events": "here",
    "index": "here",
    "prefect": "tests/prefect/test_docs.py",
    "quickstart": "here",
    "testing": "here",
}


def test_no_page_has_python_that_nobody_runs():
    assert {page.stem for page in DOCS.glob("*.md") if blocks(page.read_text(), "python")} <= EXECUTED.keys()


@pytest.mark.parametrize("page", ["concepts", "events", "index", "quickstart"])
def test_the_python_of_a_page_runs(credit_gateway, page):
    def enrich(row):
        credit_gateway.drain(8)
        return SimpleNamespace(credits_used=8)

    names = {"rows": [1, 2, 3], "enrich": enrich, "guard": guard}
    if page == "concepts":
        credit_gateway.set_credits(600)
    for block in blocks((DOCS / f"{page}.md").read_text(), "python"):
        exec(compile(block, page, "exec"), names)
    if page != "events":
        assert credit_gateway.requests["/api/v1/account/balances"] == 2
        assert [run["credits_recorded"] for run in open_ledger(os.environ["CREDITGUARD_LEDGER"]).runs()] == [24]


def test_the_quick_starts_shell_runs(credit_gateway, shell, tmp_path):
    _, sandbox, own = blocks((DOCS / "quickstart.md").read_text(), "sh")
    done = shell(sandbox, {"XDG_STATE_HOME": str(tmp_path / "sandbox")})
    assert done.returncode == 75, done.stderr
    assert done.stdout.splitlines()[-3:] == ["120", "enough: needs 80 credits, has 120", "working"]
    assert "posters" in done.stderr
    done = shell(own)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["enough: needs 80 credits, has 120", "ran"]


def test_the_race_ends_as_the_page_says(credit_gateway):
    script = ROOT / "examples/race.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"```\n{done.stdout}```\n" in (DOCS / "race.md").read_text()


def test_the_ledgers_shell_runs(credit_gateway, shell):
    (block,) = blocks((DOCS / "ledger.md").read_text(), "sh")
    with guard("nightly", budget=50) as run:
        done = shell(block.replace("release ID", f"release {run.id}"))
        assert open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds() == []
    assert done.returncode == 0, done.stderr
    assert run.id in done.stdout


def test_the_tables_of_the_events_are_made_from_the_schema():
    spec = spec_from_file_location("events_tables", DOCS / "events_tables.py")
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (DOCS / "events.md").read_text()
    assert script.TABLES.search(page)
    assert script.renewed(page) == page, "docs/events.md is not current: python docs/events_tables.py"


def test_docs_testing_runs(credit_gateway, tmp_path):
    (block,) = blocks((ROOT / "docs/testing.md").read_text(), "python")
    (tmp_path / "test_example.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_example.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "out"),
    [
        ("sync_batch.py", ["5"], "40 credits (recorded), 80 left\n"),
        ("async_batch.py", ["6"], "48 credits\n"),
        ("generator_pipeline.py", ["100"], "poster 0 8\nposter 1 8\nposter 2 8\n"),
    ],
)
def test_examples_run(credit_gateway, script, arguments, out):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script, *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, out), done.stderr
    assert credit_gateway.credits < 120


def test_the_batch_that_does_not_fit_is_not_started(credit_gateway):
    done = subprocess.run(
        [sys.executable, ROOT / "examples/sync_batch.py", "50"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 75
    assert "needs 400 credits, 120 are free" in done.stderr
    assert credit_gateway.credits == 120


@pytest.mark.parametrize(("credits_", "code", "last"), [(120, 0, "done"), (20, 75, "short of credits")])
def test_the_cron_job_runs(credit_gateway, tmp_path, credits_, code, last):
    credit_gateway.set_credits(credits_)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "REPORT": str(tmp_path / "report.json"),
    }
    done = subprocess.run([ROOT / "examples/cron_job.sh"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert last in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["stage"] == ("command" if code == 0 else "preflight")
    assert credit_gateway.credits == (credits_ - 32 if code == 0 else credits_)


def test_the_demo(tmp_path):
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment["DEMO_PAGE"] = str(tmp_path / "folder/demo.html")
    done = subprocess.run(
        ["sh", ROOT / "examples/demo.sh"], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("credits") >= 9
    assert "exit code 75: short of credits, nothing ran" in done.stdout
    assert "thumbnails: consumed 72 of 80 credits" in done.stderr
    assert "posters: refused, needs 80 credits, 48 are free (48 on the account)" in " ".join(done.stderr.split())
    assert "1 run of 1 job consumed 72 credits, and 1 was refused." in (tmp_path / "folder/demo.html").read_text()
    assert (
        shutil.which("pgrep") is None
        or not subprocess.run(["pgrep", "-f", f"{tmp_path}.*sandbox"], capture_output=True).stdout
    )
