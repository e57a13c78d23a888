"""`creditguard record N`: a wrapped command says what it has spent. One line appended to the file that `run` named."""

from __future__ import annotations

import argparse
import os

from creditguard.cli import exits
from creditguard.cli.records import VARIABLE
from creditguard.errors import ConfigurationError


def run(options: argparse.Namespace) -> int:
    """Add to the run's recorded credits. Appending a short line is atomic, so parallel children may do it at once."""
    path = os.environ.get(VARIABLE)
    if not path:
        message = f"{VARIABLE} is not set: record works inside of creditguard run -- CMD"
        raise ConfigurationError(message, VARIABLE)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, f"{options.credits:f}\n".encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise ConfigurationError(f"{VARIABLE}: {path} cannot be written: {error.strerror}", VARIABLE) from None
    return exits.OK
