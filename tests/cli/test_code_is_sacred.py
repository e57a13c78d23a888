"""CMD's exit code comes out, whatever becomes of the report file or the record file: a line on stderr says what went wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from creditguard.cli.record_file import RecordFile
from creditguard.cli.report_file import ReportFile
from creditguard.ledgers import open_ledger

COMMAND = [sys.executable, "-m", "creditguard"]


def run(creditguard, script, *options, **more):
    """A command that does what the script says, and ends with 7."""
    done = creditguard("run", "--budget", 5, *options, "--", "sh", "-c", f"{script}\nexit 7", **more)
    assert done.code == 7, done.stderr
    assert (done.names[0], done.names.count("finished")) == ("admitted", 1)
    assert open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds() == []
    return done


def run_with(code, *options, script="exit 7", **environment):
    """The same in a process that begins with this code of Python, which is to call `main`."""
    command = [sys.executable, "-c", code, "run", "-q", "--budget", "5", *options, "--", "sh", "-c", script]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def recorded(done):
    return next(event for event in done.events if event["event"] == "creditguard.finished")["credits_recorded"]


def test_a_variable_without_a_name_is_no_obstacle(gateway):
    command = ["env", "=x", *COMMAND, "run", "-q", "--budget", "5", "--", "sh", "-c", "exit 7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (7, "")


# The report file


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("rm -r folder", "No such file or directory"),
        ("mv folder other", "No such file or directory"),
        ("rm -r folder; echo > folder", "Not a directory"),
        ("rm -r folder; ln -s nowhere folder", "No such file or directory"),
        ("mkdir folder/report.json", "Is a directory"),
        ("mkfifo folder/report.json", "No such device or address"),
        ("rm -r folder; ln -s folder folder", "Too many levels of symbolic links"),
    ],
)
def test_a_place_for_the_report_that_has_changed(gateway, creditguard, tmp_path, script, reason):
    (tmp_path / "folder").mkdir()
    done = run(creditguard, script, "--report-file", "folder/report.json", cwd=tmp_path)
    assert done.messages == [f"creditguard: --report-file: folder/report.json cannot be written: {reason}"]
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_folder_that_has_become_read_only(gateway, creditguard, tmp_path):
    (tmp_path / "folder").mkdir()
    command = [*COMMAND, "run", "--budget", "5", "--report-file", "folder/report.json", "--", "sh", "-c"]
    if os.geteuid() == 0:  # who may write anywhere, unless it is taken from him
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and there is no setpriv here to forbid it")
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *command]
    command.append("chmod 500 folder; exit 7")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 7
    assert "--report-file: folder/report.json cannot be written: Permission denied\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_under_the_report(gateway, creditguard, tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")  # so that a mistake of ours replaces no device
    done = run(creditguard, ":", "--report-file", "full", cwd=tmp_path)
    assert done.messages == ["creditguard: --report-file: full cannot be written: No space left on device"]


def test_a_name_of_250_characters(gateway, creditguard, tmp_path):
    name = "r" * 250
    run(creditguard, ":", "--report-file", name, cwd=tmp_path)
    assert json.loads((tmp_path / name).read_text())["exit_code"] == 7
    done = creditguard("run", "--budget", 5, "--report-file", "r" * 256, "--", "touch", "ran", cwd=tmp_path)
    assert (done.code, done.messages) == (78, [f"creditguard: --report-file: {'r' * 256}: File name too long"])
    assert not (tmp_path / "ran").exists()


def test_a_device_or_a_pipe_is_written_to_and_not_replaced(gateway, creditguard, tmp_path):
    null, pipe = tmp_path / "null", tmp_path / "pipe"
    null.symlink_to("/dev/null")
    run(creditguard, ":", "--report-file", null)
    assert stat.S_ISCHR(null.stat().st_mode)
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(json.loads(pipe.read_text())))
    reader.start()
    run(creditguard, ":", "--report-file", pipe)
    reader.join(10)
    assert found[0]["exit_code"] == 7
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_nobody_reads_is_not_waited_for(gateway, creditguard, tmp_path):
    """Its reader is there, and lets it run full."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    done = run(creditguard, ":", "--report-file", pipe)
    assert done.messages == [f"creditguard: --report-file: {pipe} cannot be written: nobody reads it"]
    os.close(reader)
    os.close(writer)


def test_a_stderr_that_nobody_reads_is_not_waited_for(gateway, creditguard):
    """Signals do nothing any more when the message comes: a wait for room could only be killed."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    command = ("run", "-q", "--budget", 5, "--report-file", "/dev/full", "--", "sh", "-c", "exit 7")
    assert creditguard(*command, stderr=writer).code == 7
    os.close(reader)
    os.close(writer)


def test_nobody_can_lie_in_wait_for_the_report(gateway, creditguard, tmp_path):
    """The name that it is written under first cannot be known, and is short; a link at its own name is not followed."""
    (tmp_path / "victim").write_text("precious")
    script = 'ln -s victim report.json; for pid in $PPID; do ln -s victim ".report.json.$pid.tmp"; done'
    run(creditguard, script, "--report-file", "report.json", cwd=tmp_path)
    assert (tmp_path / "victim").read_text() == "precious"
    assert json.loads((tmp_path / "report.json").read_text())["exit_code"] == 7
    assert not (tmp_path / "report.json").is_symlink()


def test_the_report_has_the_rights_of_any_new_file(gateway, creditguard, tmp_path):
    run(creditguard, ":", "--report-file", tmp_path / "report.json", preexec_fn=lambda: os.umask(0o027))
    assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_the_report_comes_to_stdout_after_the_command(gateway, creditguard, name):
    done = run(creditguard, "echo from the command; (sleep 0.3; echo still it) ", "--report-file", name)
    assert done.stdout.startswith("from the command\nstill it\n{\n")
    report = json.loads(done.stdout.partition("still it\n")[2])
    assert (report["stage"], report["exit_code"], report["outcome"]) == ("command", 7, "failed")


def test_the_report_of_a_refusal_comes_to_stdout_too(gateway, creditguard):
    done = creditguard("run", "--budget", 500, "--report-file", "-", "--", "echo", "never")
    assert (done.code, json.loads(done.stdout)["stage"]) == (75, "preflight")


def test_stdout_for_the_report_is_appended_to(gateway, creditguard, tmp_path):
    """A file under stdout keeps what the command has written there."""
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        creditguard("run", "--budget", 5, "--report-file", "/dev/stdout", "--", "echo", "kept", stdout=stdout)
    assert out.read_text().startswith("kept\n{")


@pytest.mark.parametrize("redirection", [">/dev/full", "| true"])
def test_a_stdout_that_cannot_take_the_report(gateway, redirection):
    command = f"{' '.join(COMMAND)} run --budget 5 --report-file - -- sh -c 'sleep 0.5; exit 7' {redirection}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.stdout == "7\n"
    assert done.stderr.splitlines()[-1].startswith("creditguard: --report-file: - cannot be written: ")


def test_a_closed_stdout_is_told_before_the_command(gateway, creditguard, tmp_path):
    arguments = ("run", "--budget", 5, "--report-file", "-", "--", "touch", tmp_path / "ran")
    done = creditguard(*arguments, preexec_fn=lambda: os.close(1))
    assert (done.code, done.stderr) == (78, "creditguard: --report-file: -: stdout is closed\n")
    assert not (tmp_path / "ran").exists()


def test_a_report_that_cannot_be_made_is_a_message(tmp_path):
    class Odd:
        def to_dict(self):
            return {"balance": object()}

    message = ReportFile(str(tmp_path / "report.json")).write(Odd(), "command", 7)
    assert message.startswith(f"--report-file: {tmp_path}/report.json cannot be written: TypeError: ")
    assert list(tmp_path.iterdir()) == []


INTERRUPTED = """
import os, signal
from creditguard.cli import main
from creditguard.cli import report_file
whole = report_file._replace
def replace(*args):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(os.getpid(), number)
    whole(*args)
report_file._replace = replace
raise SystemExit(main())
"""


def test_no_signal_comes_between_the_report_and_the_code(gateway, tmp_path):
    path = tmp_path / "report.json"
    assert run_with(INTERRUPTED, "--report-file", path).returncode == 7
    assert json.loads(path.read_text())["exit_code"] == 7


# The record file

FILE = '"$CREDITGUARD_RECORD_FILE"'


@pytest.mark.parametrize("watch", [(), ("--watch", "1s")])
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (f"rm {FILE}", "it cannot be read: No such file or directory"),
        (f"rm {FILE}; mkfifo {FILE}", "it is no longer a file"),
        (f"rm {FILE}; mkdir {FILE}", "it is no longer a file"),
        (
            f"echo 40 > amounts; rm {FILE}; ln -s $PWD/amounts {FILE}",
            "it cannot be read: Too many levels of symbolic links",
        ),
        (f"rm {FILE}; ln -s /dev/zero {FILE}", "it cannot be read: Too many levels of symbolic links"),
        (f"rm {FILE}; mknod {FILE} c 1 5", "it is no longer a file"),
        (f"truncate -s 20G {FILE}", "it is too long: only its first 32 MiB count"),
    ],
)
def test_a_record_file_that_is_none_any_more(gateway, creditguard, tmp_path, script, message, watch):
    if "mknod" in script and os.geteuid():
        pytest.skip("only root makes devices")
    environment = {"CREDITGUARD_MIN_INTERVAL": "1", "TMPDIR": str(tmp_path)}
    done = run(creditguard, f"{script}\nsleep {1 if watch else 0}", *watch, env=environment, cwd=tmp_path)
    assert f"creditguard: CREDITGUARD_RECORD_FILE: {message}" in done.messages
    assert recorded(done) is None
    assert [path for path in tmp_path.glob("*.record") if not path.is_dir()] == []


def test_a_million_records_count_and_take_no_time(gateway, creditguard):
    done = run(creditguard, f"yes 0.000001 | head -1000000 >> {FILE}")
    assert recorded(done) == 1
    assert done.messages == []


def test_rubbish_in_the_record_file_is_a_few_lines(gateway, creditguard):
    done = run(
        creditguard,
        f"seq -f line%g 1 100000 >> {FILE}; head -c 3000000 /dev/zero >> {FILE}; printf '\\n3' >> {FILE}",
    )
    assert len(done.messages) == 6
    assert done.messages[-1] == "creditguard: CREDITGUARD_RECORD_FILE: and more of the kind"
    assert recorded(done) == 3


def test_a_line_without_an_end_counts_once_it_is_whole(gateway, creditguard):
    script = f"printf 1 >> {FILE}; sleep 0.8; echo 2 >> {FILE}; sleep 0.8; printf 3 >> {FILE}"
    done = run(creditguard, script, "--watch", "15s")
    assert recorded(done) == 15


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "gone"])
def test_record_writes_to_a_file_and_nothing_else(creditguard, tmp_path, kind):
    path, victim = tmp_path / "record", tmp_path / "victim"
    victim.touch()
    {"fifo": os.mkfifo, "link": lambda path: path.symlink_to(victim), "folder": Path.mkdir, "gone": lambda _: None}[
        kind
    ](path)
    done = creditguard("record", 5, env={"CREDITGUARD_RECORD_FILE": str(path)})
    assert (done.code, len(done.messages)) == (78, 1)
    assert victim.read_text() == ""


def test_half_an_amount_is_never_recorded(creditguard, tmp_path):
    path = tmp_path / "record"
    path.write_text("0\n" * 2047)
    room = len("0\n") * 2047 + 1
    done = creditguard(
        "record",
        125,
        env={"CREDITGUARD_RECORD_FILE": str(path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert (done.code, len(done.messages), path.read_text()) == (78, 1, "0\n" * 2047)


def test_a_signal_while_the_records_are_read_leaves_code_and_records(gateway, creditguard, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\nimport creditguard.cli.record_file as records\nwhole = records.RecordFile._read_on\n"
        "def read_on(*args, **last):\n    os.kill(os.getpid(), signal.SIGTERM)\n    whole(*args, **last)\n"
        "records.RecordFile._read_on = read_on\n"
    )
    done = run(creditguard, f"echo 4 >> {FILE}", env={"PYTHONPATH": str(tmp_path)})
    assert recorded(done) == 4
    assert signal.Signals(15).name not in done.stderr


def test_a_look_at_the_records_that_comes_late_finds_nothing_wrong(tmp_path, monkeypatch):
    """It was about to begin when CMD had ended, and the file is gone: nothing to tell anybody."""

    class Late:
        """A lock that lets the service thread in once the file has been removed."""

        def __init__(self):
            self.lock, self.removed = threading.Lock(), threading.Event()

        def __enter__(self):
            if threading.current_thread() is late:
                self.removed.wait(20)
            return self.lock.__enter__()

        def __exit__(self, *error):
            return self.lock.__exit__(*error)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    record_file = RecordFile()
    record_file.make()
    record_file._lock = Late()
    late = threading.Thread(target=record_file.collect, args=[None])
    late.start()
    record_file.finish(None)
    record_file._lock.removed.set()
    late.join(20)
    assert (record_file.troubles, list(tmp_path.iterdir())) == ([], [])


AT_EVERY_INSTANT = """
import atexit, os, signal, sys
from creditguard.cli import main, run
from creditguard.cli.record_file import RecordFile

def hit(*_, kill=os.kill, pid=os.getpid(), numbers=(signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
    for number in numbers:
        kill(pid, number)

class LastObject:
    __del__ = hit

def hit_around(function):
    def around(*arguments, **options):
        hit()
        try:
            return function(*arguments, **options)
        finally:
            hit()
    return around

instant = os.environ["INSTANT"]
if instant == "troubles":  # the first line after signals are ours again
    RecordFile.troubles = property(hit, lambda *_: None)
elif instant == "exit":
    atexit.register(hit)
elif instant == "finalization":  # when the interpreter has taken its handlers away
    sys.last_object = LastObject()
else:
    setattr(run, instant, hit_around(getattr(run, instant)))
sys.exit(main())
"""


@pytest.mark.parametrize("instant", ["troubles", "_outcome", "_close", "_write", "exit", "finalization"])
def test_no_signal_after_the_command_replaces_its_code(gateway, tmp_path, instant):
    path = tmp_path / "report.json"
    done = run_with(AT_EVERY_INSTANT, "--report-file", path, INSTANT=instant)
    assert (done.returncode, "Traceback" in done.stderr) == (7, False)
    report = json.loads(path.read_text())
    assert (report["exit_code"], report["stage"]) == (7, "command")
    assert open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds() == []


TWO_AT_ONCE = """
import os, signal, sys
from creditguard.cli import run
from creditguard.cli.parser import parse

def code_when_struck_in(name, line):  # once there, and once more at so many lines of `run` after that
    lines = None

    def at_each_line(frame, event, _):
        nonlocal lines
        if event == "line" and frame.f_code is run.run.__code__ and lines is not None:
            lines += 1
            if lines == line:
                os.kill(os.getpid(), signal.SIGHUP)
        return at_each_line

    def struck(*_):
        nonlocal lines
        lines = 0
        os.kill(os.getpid(), signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    whole = getattr(run, name)
    setattr(run, name, struck)
    sys.settrace(at_each_line)
    try:
        return run.run(parse(["run", "-q", "--budget", "1", "--", "true"]))
    finally:
        sys.settrace(None)
        setattr(run, name, whole)

print({code_when_struck_in(name, line) for name in ("_guard", "_command") for line in range(1, 13)})
"""


def test_two_signals_at_once_before_the_command_are_no_bug(gateway):
    done = subprocess.run([sys.executable, "-c", TWO_AT_ONCE], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() in {"{129, 143}", "{143, 129}"}, done.stderr
    assert open_ledger(os.environ["CREDITGUARD_LEDGER"]).holds() == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_is_meant_for_the_command_is_nothing_once_it_has_ended(gateway, tmp_path, number):
    path = tmp_path / "report.json"
    code = (
        "import os, sys\nfrom creditguard.cli import main, run\nwhole = run._close\n"
        f"def close(*arguments):\n    os.kill(os.getpid(), {int(number)})\n    whole(*arguments)\n"
        "run._close = close\nsys.exit(main())"
    )
    assert run_with(code, "--report-file", path).returncode == 7
    assert json.loads(path.read_text())["balance_after"] == 120


def test_killed_by_sigkill_it_leaves_no_record_file(gateway, tmp_path):
    folder = tmp_path / "it's"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "creditguard", "run", "-q", "--budget", "5", "--", "sh", "-c", "echo ready; sleep 60"],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    assert [path.suffix for path in folder.iterdir()] == [".record"]
    process.kill()
    process.communicate(timeout=20)  # until CMD, too, is gone
    assert list(folder.iterdir()) == []


AT_AN_INSTANT = """
import os, sys
from creditguard.cli import main
from creditguard.cli.record_file import RecordFile

instant, number = os.environ["INSTANT"], int(os.environ["SIGNAL"])
original = getattr(RecordFile, instant)
def struck(*arguments, **options):
    if instant == "finish":
        os.kill(os.getpid(), number)
    original(*arguments, **options)
    os.kill(os.getpid(), number)
setattr(RecordFile, instant, struck)
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("instant", ["make", "finish"])
def test_struck_when_the_record_file_has_just_been_made_or_is_about_to_go_it_leaves_none(
    gateway, tmp_path, instant, number
):
    all_gone, theirs = os.pipe()
    subprocess.run(
        [sys.executable, "-c", AT_AN_INSTANT, "run", "-q", "--budget", "5", "--", "true"],
        env={**os.environ, "TMPDIR": str(tmp_path), "INSTANT": instant, "SIGNAL": str(int(number))},
        pass_fds=[theirs],
        check=False,
    )
    os.close(theirs)
    with os.fdopen(all_gone) as pipe:
        assert pipe.read() == ""  # once the guardian, too, is gone
    assert list(tmp_path.glob("*.record")) == []
