"""The command line: parse, run one command, end with its exit code. Each command is a module, loaded when it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from creditguard.cli import exits
from creditguard.cli.parser import UsageError, parse
from creditguard.errors import CreditGuardError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Nothing but SystemExit (from --help) comes out of it."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    code, short_code, systemd = exits.BUG, exits.SHORT, _asks_for_systemd(arguments)
    try:
        options = parse(arguments)
        short_code = getattr(options, "short_code", short_code)
        code = import_module(f"creditguard.cli.{options.module}").run(options)
    except UsageError as error:
        say(str(error))
        code = exits.USAGE
    except CreditGuardError as error:
        say(str(error))
        code = exits.code_for(error, short_code)
    except KeyboardInterrupt:
        code = exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our answer has gone (`| head -1`). Nothing may be written to that pipe any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + 13
    except Exception as error:
        if os.environ.get("CREDITGUARD_DEBUG"):
            raise
        say(f"a bug in creditguard: {type(error).__name__}: {error} (CREDITGUARD_DEBUG=1 shows where)")
        code = exits.BUG
    try:
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # What a full disk did not take is still in the buffer; Python would fail on it at exit, with a code of its own (120).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return exits.for_systemd(code, short_code) if systemd else code


def say(message: str) -> None:
    """One line on stderr, if there is one."""
    try:
        sys.stderr.write(f"creditguard: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # closed, or none at all


def _asks_for_systemd(arguments: Sequence[str]) -> bool:
    """Told before parsing, since a usage error, too, must not look like a skip."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--systemd" in own and own[:1] == ["check"]
