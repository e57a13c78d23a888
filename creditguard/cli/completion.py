"""`creditguard completion SHELL`: the completion script for a shell, or the man page. `make shell-files` makes them."""

from __future__ import annotations

import argparse
import pkgutil

from creditguard.cli import exits
from creditguard.cli.output import answer

FILES = {"bash": "creditguard.bash", "zsh": "_creditguard", "fish": "creditguard.fish", "man": "creditguard.1"}


def run(options: argparse.Namespace) -> int:
    """Print the file."""
    content = pkgutil.get_data("creditguard.cli", f"shell/{FILES[options.shell]}") or b""
    answer(content.decode(), end="")
    return exits.OK
