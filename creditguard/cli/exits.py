"""Exit codes, after sysexits.h, and which error ends in which."""

from __future__ import annotations

import errno

from creditguard.errors import (
    AuthenticationError,
    BalanceUnavailable,
    ConfigurationError,
    InsufficientCredits,
    LedgerError,
    UnexpectedResponse,
)

OK = 0
USAGE = 64
NOT_UNDERSTOOD = 65
UNREACHABLE = 69
BUG = 70
UNWRITABLE = 74
SHORT = 75
KEY_REJECTED = 77
CONFIGURATION = 78
BROKEN_PIPE = 141

_LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_NO_THREAD = "can't start new thread"


class UsageError(Exception):
    """The command line could not be understood; the message is one line."""


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (UsageError, USAGE),
    (InsufficientCredits, SHORT),
    (AuthenticationError, KEY_REJECTED),
    (UnexpectedResponse, NOT_UNDERSTOOD),
    (BalanceUnavailable, UNREACHABLE),
    (LedgerError, UNREACHABLE),
    (ConfigurationError, CONFIGURATION),
)


def code_for(error: Exception, short_code: int = SHORT) -> int:
    """The exit code of an error; `short_code` stands in for 75."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), BUG)
    return short_code if code == SHORT else code


def lacking(error: Exception) -> str | None:
    """What the operating system does not give, which is nobody's bug, and may pass: UNREACHABLE."""
    if isinstance(error, MemoryError):
        return "no memory is left"
    if isinstance(error, OSError) and error.errno in _LACKING:
        return error.strerror
    return _NO_THREAD if isinstance(error, RuntimeError) and str(error) == _NO_THREAD else None


def for_systemd(code: int, short_code: int = SHORT) -> int:
    """ExecCondition= takes 1 to 254 for a quiet skip: only being short may be one; whatever is wrong must be seen (255)."""
    return code if code in (OK, short_code) else 255
