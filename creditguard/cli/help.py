"""`creditguard help [COMMAND]`, and `creditguard` alone."""

from __future__ import annotations

import argparse

from creditguard.cli import exits
from creditguard.cli.output import answer
from creditguard.cli.parser import build, build_command
from creditguard.cli.screen import SCREEN


def run(options: argparse.Namespace) -> int:
    """Print the help. Nobody asked for it if there was no command: then it is an error, since 0 would mean `enough`."""
    text = (build_command(options.topic) if options.topic else build()).format_help()
    if options.asked:
        answer(text, end="")
        return exits.OK
    SCREEN.write(text.rstrip("\n"))
    return exits.USAGE
