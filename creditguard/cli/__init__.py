"""The command line: parse, run one command, end with its exit code. Each command is a module, loaded when it is asked for.

All imports are made inside of `main`, so that Ctrl-C ends us in silence from our first line on.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as typing.TYPE_CHECKING
if TYPE_CHECKING:
    from collections.abc import Sequence

_TIDY = frozenset({"extend", "run", "sandbox", "wait"})
"""The commands that have something to put in order when they are interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Nothing comes out of it (but a bug, with CREDITGUARD_DEBUG=1)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    systemd = _asks_for_systemd(arguments)
    interrupted = 255 if systemd else 130
    try:
        ours = argv is None and _end_when_interrupted(interrupted)
        return _main(arguments, systemd=systemd, sigint_is_ours=ours)
    except KeyboardInterrupt:
        return interrupted


def _main(arguments: list[str], *, systemd: bool, sigint_is_ours: bool) -> int:
    from creditguard.cli import exits
    from creditguard.cli.output import Unwritable, flush_stderr, say
    from creditguard.errors import CreditGuardError

    options, short_code = None, exits.SHORT
    try:
        from importlib import import_module

        from creditguard.cli.parser import parse

        options = parse(arguments)
        short_code = getattr(options, "short_code", short_code)
        run = import_module(f"creditguard.cli.{options.module}").run
        if sigint_is_ours and options.module in _TIDY:
            import signal

            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(options)
    except (CreditGuardError, exits.UsageError) as error:
        from creditguard.cli.wording import worded

        say(worded(error, options))
        code = exits.code_for(error, short_code)
    except SystemExit as ended:  # --help
        code = exits.OK if ended.code is None else int(ended.code)
    except Unwritable as error:
        say(f"the answer cannot be written to stdout: {error}")
        code = exits.UNWRITABLE
    except BrokenPipeError:
        code = exits.BROKEN_PIPE
    except Exception as error:
        if os.environ.get("CREDITGUARD_DEBUG"):
            raise
        if lack := exits.lacking(error):
            say(f"the system lets us do no more: {lack}")
            code = exits.UNREACHABLE
        else:
            say(f"a bug in creditguard: {type(error).__name__}: {error} (CREDITGUARD_DEBUG=1 shows where)")
            code = exits.BUG
    flush_stderr()
    return exits.for_systemd(code, short_code) if systemd else code


def _asks_for_systemd(arguments: Sequence[str]) -> bool:
    """Told before parsing, since a usage error, too, must not look like a skip."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--systemd" in own and own[:1] == ["check"]


def _end_when_interrupted(code: int) -> bool:
    """Have Ctrl-C end the process at once and without a word; False where it is ignored, or the host program's business.

    A KeyboardInterrupt would not do: raised in a callback of the import system, it is printed and forgotten.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    return True
