"""`creditguard record N`: a wrapped command says what it has spent. One line appended to the file that `run` named."""

from __future__ import annotations

import argparse
import errno
import os
import stat

from creditguard.cli import exits
from creditguard.cli.records import VARIABLE
from creditguard.errors import ConfigurationError


def run(options: argparse.Namespace) -> int:
    """Add to the run's recorded credits."""
    append(f"{options.credits:f}")
    return exits.OK


def append(line: str) -> None:
    """Append a line to the run's file. A short one is appended in one piece, so parallel children may do it at once."""
    path = os.environ.get(VARIABLE)
    if not path:
        message = f"{VARIABLE} is not set: record works inside of creditguard run -- CMD"
        raise ConfigurationError(message, VARIABLE)
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ConfigurationError(f"{VARIABLE}: {path} is no longer a file", VARIABLE)
            text = f"{line}\n".encode()
            written = os.write(file, text)
            if written < len(text):  # a full disk, and half of an amount is another amount
                os.ftruncate(file, os.lseek(file, 0, os.SEEK_CUR) - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)
    except OSError as error:
        raise ConfigurationError(f"{VARIABLE}: {path} cannot be written: {error.strerror}", VARIABLE) from None
