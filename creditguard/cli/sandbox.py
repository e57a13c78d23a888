"""`creditguard sandbox`: a local gateway to try things on, for other shells or for one command."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

from creditguard.cli import exits
from creditguard.cli.output import answer, say
from creditguard.errors import ConfigurationError
from creditguard.sandbox.gateway import Gateway, environment, serve


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted, or for as long as CMD runs; then the code is CMD's.

    The sandbox's key is its own, made up for it: yours is neither asked for nor shown.
    """
    if options.credits != options.credits.to_integral_value():
        raise ConfigurationError("--credits must be a whole number", "--credits")
    try:
        if options.argv:
            return _run(options.argv, Gateway(int(options.credits), port=options.port))
        serve(options.port, int(options.credits), announce=_announce)
    except OSError as error:
        if options.port and not isinstance(error, BrokenPipeError):
            raise ConfigurationError(f"--port {options.port} cannot be used: {error.strerror}", "--port") from None
        raise
    return exits.OK


def _announce(gateway: Gateway) -> None:
    """As shell commands to copy, or to `eval`."""
    answer(
        f"export CREDITGUARD_BASE_URL={gateway.url}\nexport APIMALL_API_KEY={gateway.key}\nunset APIMALL_API_KEY_FILE"
    )


def _run(argv: Sequence[str], gateway: Gateway) -> int:
    from creditguard.cli.child import Child, leave

    with Child() as command, _folder() as folder, gateway:
        command.on_vanishing(f"rm -rf {quote(folder)}")
        ended = command.run(argv, lambda: _environment(gateway, folder))
    if ended.reason:
        say(ended.reason)
    leave(ended)


@contextmanager
def _folder() -> Iterator[str]:
    from tempfile import TemporaryDirectory

    try:
        folder = TemporaryDirectory(prefix="creditguard-")
    except OSError as error:
        raise ConfigurationError(f"TMPDIR: no folder can be made for the sandbox: {error.strerror}", "TMPDIR") from None
    try:
        yield folder.name
    finally:
        with suppress(Exception):  # whatever the command has made of it: the code stays the command's
            folder.cleanup()


def _environment(gateway: Gateway, folder: str) -> dict[str, str]:
    """The sandbox's. Nothing leads out of it: not to your account's name, under which others count holds, nor to
    their ledger, nor to what your own and the system's settings files say."""
    from creditguard.cli.child import inherited_environment

    inherited = inherited_environment()
    for name in ("APIMALL_API_KEY_FILE", "CREDITGUARD_ACCOUNT"):
        inherited.pop(name, None)
    return {**inherited, "CREDITGUARD_SANDBOX": "1", **environment(gateway, Path(folder, "ledger.db"), inherited)}
