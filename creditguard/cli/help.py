"""`creditguard help [COMMAND]`, and `creditguard` alone."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

from creditguard.cli import exits
from creditguard.cli.output import answer
from creditguard.cli.parser import build, build_command


def run(options: argparse.Namespace) -> int:
    """Print the help. Nobody asked for it if there was no command: then it is an error, since 0 would mean `enough`."""
    text = (build_command(options.topic) if options.topic else build()).format_help()
    if options.asked:
        answer(text, end="")
        return exits.OK
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
    return exits.USAGE
