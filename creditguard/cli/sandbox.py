"""`creditguard sandbox`: a local gateway to try things on."""

from __future__ import annotations

import argparse
import os

from creditguard.cli import exits
from creditguard.errors import ConfigurationError


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted. Prints how to use it, as shell commands to copy (or to `eval`)."""
    from creditguard.sandbox import Gateway, serve

    if options.credits != options.credits.to_integral_value():
        raise ConfigurationError("--credits must be a whole number", "--credits")
    own_key = os.environ.get("APIMALL_API_KEY") or None

    def announce(gateway: Gateway) -> None:
        print(f"export CREDITGUARD_BASE_URL={gateway.url}", flush=True)
        if own_key is None:  # one that was made up for this sandbox; yours is accepted, and not shown
            print(f"export APIMALL_API_KEY={gateway.key}", flush=True)

    try:
        serve(options.port, int(options.credits), key=own_key, announce=announce)
    except OSError as error:
        raise ConfigurationError(f"--port {options.port} cannot be used: {error.strerror}", "--port") from None
    return exits.OK
