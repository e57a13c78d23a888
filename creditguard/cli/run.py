"""`creditguard run -- CMD`: a guarded command. Its exit code, output, signals and terminal stay its own."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from shlex import quote
from types import FrameType

from creditguard import settings
from creditguard.cli import child, exits
from creditguard.cli.naming import job_name
from creditguard.cli.output import say
from creditguard.cli.preflight import Events, guard_for
from creditguard.cli.record_file import VARIABLE, RecordFile
from creditguard.cli.report_file import ReportFile, Stage
from creditguard.cli.screen import SCREEN
from creditguard.cli.wording import worded
from creditguard.engine.engine import engine
from creditguard.errors import CreditGuardError
from creditguard.guarding.entry import Entry
from creditguard.guarding.guard import guard
from creditguard.guarding.run import Run
from creditguard.rules.values import Outcome

_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a command that is stopped for going over its budget, without --kill-after."""
_RECORDS_EVERY = 0.5
_MEANT_FOR_CMD = (signal.SIGUSR1, signal.SIGUSR2)
"""They end a process that has made nothing of them: us before CMD is there, and not when it has gone."""


class _Signalled(BaseException):
    """A signal that ends us, outside of the time in which CMD gets it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Signals:
    """Before and after CMD, signals that end us do so in good order: the hold is given back, the report is written.

    Two are raised at most, for `timeout` and others send two at once, and one of them may come when the first is dealt with. Once
    CMD has ended one may cut the last reading short, and from there on none does anything: whenever it comes, the code is CMD's.
    So they stay ours until the process ends.
    """

    def __init__(self, ended: list[child.Ended]) -> None:
        self._ended = ended
        self._raised = False
        self.over = False

    def catch(self) -> None:
        """From now on."""
        for number in (*child.ENDING, *_MEANT_FOR_CMD):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)

    def ignore(self) -> None:
        """From now on, and to the very end: for a handler the interpreter puts back the default before it has ended."""
        self.over = True
        for number in (*child.ENDING, *_MEANT_FOR_CMD):
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: int, _: FrameType | None) -> None:
        if not self.over and not (self._ended and number in _MEANT_FOR_CMD):
            self.over = self._raised or bool(self._ended)
            self._raised = True
            raise _Signalled(number)


def run(options: argparse.Namespace) -> int:
    """Ask, run CMD, report; the exit code."""
    child.plug_closed_streams()
    report_file = ReportFile(options.report_file)
    events: Events | None = None
    entry: Entry | None = None
    ended: list[child.Ended] = []
    signals = _Signals(ended)
    try:
        try:
            signals.catch()
            events = Events(options)
            own_guard = _guard(options, events)
            _say_what_it_will_do(options)
            entry = own_guard._entry()
            guarded = entry.__enter__()
            try:
                _command(options, guarded, ended)
            finally:
                _close(entry, _outcome(ended[0]) if ended else "cancelled")
        finally:
            signals.ignore()
    except CreditGuardError as error:
        code = exits.code_for(error, options.short_code)
        if not (events and events.told):
            say(worded(error, options))
        _write(report_file, entry, "preflight", code, error)
        return code
    except (_Signalled, KeyboardInterrupt) as stopped:
        signals.ignore()
        if not ended:
            code = 128 + (stopped.number if isinstance(stopped, _Signalled) else signal.SIGINT)
            _write(report_file, entry, "preflight", code)
            return code
    (end,) = ended
    _write(report_file, entry, "command" if end.started or end.reason else "preflight", end.code)
    if end.interrupted is not None:
        child.leave(end)
    return end.code


def _guard(options: argparse.Namespace, events: Events) -> guard:
    return guard_for(
        options,
        job_name(options.argv),
        events,
        settle=options.settle,
        watch=options.watch,
        thresholds=options.threshold,
        on_overrun=options.on_overrun,
        stop_below=options.stop_below,
        wait=options.wait,
        min_interval=options.interval if options.wait else None,
    )


def _command(options: argparse.Namespace, guarded: Run, ends: list[child.Ended]) -> None:
    """Run CMD; its end is in `ends` before a signal can raise again."""
    record_file = RecordFile()
    with ExitStack() as stack:
        command = child.Child(
            kill_after=options.kill_after,
            while_stopped=SCREEN.left_alone,
            when_killed=f"rm -f {quote(str(record_file.name))}" if record_file.name else ":",
        )
        try:
            stack.enter_context(command)
        except OSError as error:
            ends.append(child.not_started(options.argv, error))
        stack.callback(record_file.finish, guarded)  # before signals are ours again, which could cut it short
        if not ends:
            grace = _GRACE if options.kill_after is None else options.kill_after
            guarded.on_overrun(lambda _: command.stop(grace))
            _attend(options, guarded, record_file)
            row = _row(options, guarded)
            with SCREEN.shared_with(command, row):
                if row:
                    engine().repeat(SCREEN.look, 0.0)
                ended = command.run(options.argv, partial(_environment, options, guarded, record_file))
            if guarded.stopped and ended.code == 0:
                # We told it to end, and it did so in good order. That is no success of the job's.
                ended = replace(ended, code=128 + signal.SIGTERM)
            ends.append(ended)
    for trouble in record_file.troubles if ends[0].started else ():
        say(f"{VARIABLE}: {trouble}")
    if ends[0].reason:
        say(ends[0].reason)


def _environment(options: argparse.Namespace, guarded: Run, record_file: RecordFile) -> dict[str, str]:
    """The command's, which finds its run in it."""
    environment = child.inherited_environment()
    environment["CREDITGUARD_RUN_ID"] = guarded.id
    environment["CREDITGUARD_BUDGET"] = f"{guarded.budget:f}"
    environment["CREDITGUARD_JOB"] = guarded.job
    for name in ("account", "ledger", "keep"):  # for `creditguard extend` in there
        given = getattr(options, name)
        if given is not None:
            environment[f"CREDITGUARD_{name.upper()}"] = str(given)
    record_file.make()
    if record_file.path:
        environment[VARIABLE] = str(record_file.path)
    return environment


def _attend(options: argparse.Namespace, guarded: Run, record_file: RecordFile) -> None:
    """Take in what CMD records while it runs, if it is watched or its hold shrinks."""
    if options.watch or guarded._life.plan.shrink:
        guarded._life.grows_elsewhere = True
        engine().repeat(lambda: _RECORDS_EVERY if record_file.collect(guarded) else None, _RECORDS_EVERY)


def _row(options: argparse.Namespace, guarded: Run) -> Callable[[int], str] | None:
    """What makes the text of the row of --progress; None without it."""
    if not (options.progress and options.watch):
        return None
    from creditguard.cli.progress import row

    return partial(row, guarded)


def _outcome(ended: child.Ended) -> Outcome:
    if ended.signal or ended.told:
        return "cancelled"
    return "failed" if ended.code else "succeeded"


def _close(entry: Entry, outcome: Outcome) -> None:
    """Take the exit reading. A signal cuts it short; the code stays CMD's."""
    try:
        entry.close(outcome)
    except (_Signalled, KeyboardInterrupt):
        pass


def _write(
    report_file: ReportFile, entry: Entry | None, stage: Stage, code: int, error: CreditGuardError | None = None
) -> None:
    trouble = report_file.write(entry.run._life.report if entry else None, stage, code, error)
    if trouble:
        say(trouble)


def _say_what_it_will_do(options: argparse.Namespace) -> None:
    """Tell of options that do nothing, or something else than they seem to."""
    if not options.watch:
        idle = [
            option
            for option, given in (
                ("--progress", options.progress),
                ("--threshold", options.threshold),
                ("--on-overrun stop", options.on_overrun == "stop"),
            )
            if given
        ]
        if idle:
            say(f"{', '.join(idle)}: nothing without --watch TIME, by which the balance is read while CMD runs")
    elif options.watch < (least := settings.current().min_interval):
        say(
            f"--watch {options.watch:g}: the balance is read every {least:g} s, not more often: that would be impolite "
            "(CREDITGUARD_MIN_INTERVAL is the least)"
        )
