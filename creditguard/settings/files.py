"""The settings files: which are looked for, and how one is read.

The first is the file that CREDITGUARD_CONFIG names; without it, the nearest one from the working directory upwards. Beneath it,
field by field, lie the user's and the system's. The walk upwards ends at the first folder with a settings file, at the top of a
repository, at the home directory, and before a folder in which anybody may put a file (/tmp).
"""

from __future__ import annotations

import os
import stat
import sys
from typing import NamedTuple

from creditguard.errors import ConfigurationError
from creditguard.rules.text import printable

CONFIG = "CREDITGUARD_CONFIG"
SANDBOX = "CREDITGUARD_SANDBOX"
"""Set for a command that a sandbox runs: the user's and the system's files are not for it."""
SYSTEM = "/etc/creditguard/config.toml"
LARGEST = 1 << 20
_HEADER = b"[tool.creditguard"


class SettingsFile(NamedTuple):
    """A settings file: `name` is how messages call it; `trusted` tells whether it may say where a key goes."""

    path: str
    name: str
    trusted: bool = True
    named_by: str = ""


class Search(NamedTuple):
    """The files that there are, each beating those after it, and all the paths that were looked at."""

    files: tuple[SettingsFile, ...]
    looked_at: tuple[str, ...]


def working_directory() -> str | None:
    """The working directory; None if it was removed under us."""
    try:
        return os.getcwd()
    except OSError as error:
        only_the_systems(error)
        return None


def only_the_systems(error: OSError) -> None:
    """Raise what the system has not said: a TimeoutError that a signal handler of the host's has raised just here."""
    if error.errno is None:
        raise error


def search(directory: str | None) -> Search:
    """Look for settings files from this working directory. Opens none but pyproject.toml."""
    looked_at: list[str] = []
    files = []
    named = os.environ.get(CONFIG)
    if named:
        path = os.path.join(directory or "", os.path.expanduser(named))
        looked_at.append(path)
        files.append(SettingsFile(path, printable(path), named_by=f"{CONFIG}: "))
    elif directory:
        files += _nearest(directory, looked_at)
    for path in () if os.environ.get(SANDBOX) else filter(None, (user_file(), SYSTEM)):
        looked_at.append(path)
        files += [SettingsFile(path, printable(path))] if identity(path) else []
    return Search(tuple(files), tuple(looked_at))


def user_file() -> str | None:
    """The user's settings file, whether there is one or not; None for a user without a home directory."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):
        folder = os.path.expanduser("~/.config")
    return os.path.join(folder, "creditguard", "config.toml") if os.path.isabs(folder) else None


def _nearest(directory: str, looked_at: list[str]) -> list[SettingsFile]:
    working, home = directory, identity(os.path.expanduser("~"))
    while True:
        for name, is_ours in (("creditguard.toml", identity), ("pyproject.toml", _has_our_table)):
            path = os.path.join(directory, name)
            looked_at.append(path)
            if is_ours(path):
                return [SettingsFile(path, name if directory == working else printable(path), trusted=False)]
        parent = os.path.dirname(directory)
        is_top = any(identity(os.path.join(directory, top)) for top in (".git", ".hg"))
        if is_top or directory == parent or identity(directory) == home or _anybody_may_write(parent):
            return []
        directory = parent


def _anybody_may_write(directory: str) -> bool:
    try:
        return bool(os.stat(directory).st_mode & stat.S_IWOTH)
    except OSError as error:
        only_the_systems(error)
        return True  # not to be looked into at all


def _has_our_table(project: str) -> bool:
    try:
        return _HEADER in contents(project, LARGEST)
    except OSError as error:
        only_the_systems(error)
        return False  # none, or somebody else's business


def identity(path: str) -> tuple[int, ...] | None:
    """What changes when the file does; None if there is no file."""
    try:
        status = os.stat(path)
    except OSError as error:
        only_the_systems(error)
        return None
    except ValueError:  # a NUL in the path
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def read(file: SettingsFile) -> dict[str, object]:
    """The file's settings, as they were written. Raises ConfigurationError for a file that cannot be read or is not TOML."""
    tables = _parsed(file.path)
    if isinstance(tables, str):
        raise ConfigurationError(f"{file.named_by}{file.name} cannot be read: {tables}", file.name)
    if os.path.basename(file.path) != "pyproject.toml":
        return tables
    tool = tables.get("tool")
    ours = tool.get("creditguard", {}) if isinstance(tool, dict) else {}
    if not isinstance(ours, dict):
        raise ConfigurationError(f"tool.creditguard in {file.name} must be a table: [tool.creditguard]", file.name)
    return ours


def _parsed(path: str) -> dict[str, object] | str:
    """The tables, or what is wrong: it raises nothing, for its frame holds the text, which may hold a key."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(contents(path, LARGEST).decode())
    except OSError as error:
        only_the_systems(error)
        return str(error.strerror)
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 text ({error.reason} at byte {error.start})"
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return f"it is not TOML: {str(error).splitlines()[0]}"


def contents(path: str, largest: int) -> bytes:
    """The bytes of a regular file. Raises OSError for anything else, at once: a FIFO would be waited for, and a device such
    as /dev/zero never ends."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:
        raise OSError(0, "its name holds a NUL") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        if status.st_size > largest:
            raise OSError(0, f"it is larger than {largest >> 10} KiB")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(largest)
    finally:
        os.close(descriptor)
