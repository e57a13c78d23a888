"""Errors in the words of the command line: the options that were given, not the arguments and variables behind them."""

from __future__ import annotations

import argparse
import re

from creditguard.errors import ConfigurationError

_PLURAL = {"thresholds": "threshold", "labels": "label"}
_ARGUMENT = re.compile(r"\b([a-z_]+)=\.\.\.")


def worded(error: Exception, options: argparse.Namespace | None) -> str:
    """The error's message, as somebody expects it who typed these options."""
    message = str(error)
    if not isinstance(error, ConfigurationError) or options is None:
        return message
    name = error.setting or ""
    if name == "CREDITGUARD_LEDGER" and getattr(options, "ledger", None) is not None:
        message = message.replace(name, "--ledger")
    elif name == "APIMALL_API_KEY" and message.startswith("no API key"):
        message = message.replace("-- COMMAND", f"-- creditguard {options.module} ...")
    elif hasattr(options, _PLURAL.get(name, name)):
        message = re.sub(rf"^{re.escape(name)}\b", _flag(name), message)
    return _ARGUMENT.sub(lambda argument: _flag(argument[1]), message)


def _flag(argument: str) -> str:
    return f"--{_PLURAL.get(argument, argument).replace('_', '-')}"
