"""The file of the SQLite ledger: made, opened, brought up to date, and not shared with a forked child.

What SQLite knows of its open files it knows per process, in memory that a fork copies: a child that inherits an open file takes
locks that its *parent* has for its own. Then others, who do not see it, remove the write-ahead log from under it, and its holds
are seen by nobody. So a file is best closed in the parent before the fork. One that was open, but not in use, is closed in the
child. One in the middle of a verb can neither be closed there nor opened a second time: to the child it is unavailable.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from creditguard.ledgers.filelock import FileLock
from creditguard.ledgers.paths import default_path
from creditguard.ledgers.sqlite_sql import MIGRATIONS, OLDEST
from creditguard.process.background import seconds

_SMALL = 20_000  # pages: what is rewritten in a tenth of a second


class NotOursError(Exception):
    """The file cannot be used as it is, and this is why."""


class LedgerFile:
    """The open file: the connection, the lock beside it, and which file it is. `busy`: in the middle of a verb."""

    def __init__(self, path: Path, wait: float) -> None:
        self.pid: int = os.getpid()
        self.busy: bool = True
        self._path = str(path)
        self.lock: FileLock = FileLock()
        if not path.is_absolute():
            raise NotOursError("cannot be used: there is no home directory; name a file in CREDITGUARD_LEDGER")
        _create(path)
        self._id = _identity(self._path)
        if self._id in _lost:
            raise NotOursError("was in use when this process was forked")
        _open.add(self)
        # Never without a timeout: even opening a file fails while another process closes it.
        self.sql: sqlite3.Connection = sqlite3.connect(
            path, timeout=wait, isolation_level=None, check_same_thread=False
        )
        try:
            # NORMAL survives the death of any process; after a power cut nobody lives to hold anything.
            self.sql.execute("PRAGMA synchronous = NORMAL")
            # A checkpoint syncs the disk, so one for 4 MB (page_size below) and not for every hundred runs.
            self.sql.execute("PRAGMA wal_autocheckpoint = 4000")
            level = self._level()
            self.lock.open(path.with_name(f"{path.name}-lock"), like=path)
            if level < len(MIGRATIONS):
                self.lock.take(wait)
                try:
                    self._migrate(wait)
                finally:
                    self.lock.release()
            # SQLite keeps its log, and the index of that, beside the file itself.
            self._paths = (self._path, *(os.path.realpath(path) + ending for ending in ("-wal", "-shm")))
            self._seen = [*map(_identity, self._paths)]
        except BaseException:
            self.close()
            raise

    def is_there(self) -> bool:
        """Whether others who open the path open this file, with this log and this index: else they would not see what we write."""
        return [*map(_identity, self._paths)] == self._seen

    def close(self) -> None:
        self.busy = False
        with suppress(AttributeError):  # it could not be opened
            self.sql.close()
        self.lock.close()

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        # A ledger that nobody closed: its connection would end in a ResourceWarning.
        if self.pid == getpid() and not self.busy:
            self.close()

    def _level(self) -> int:
        """The level of the schema; 0 for a new file."""
        tables = [name for (name,) in self._all("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if not tables:
            return 0
        if "meta" not in tables or "holds" not in tables:
            raise NotOursError("is a SQLite database of something else")
        meta = dict(self._all("SELECT key, value FROM meta"))
        version = int(meta["schema_version"])
        if version > OLDEST:
            raise NotOursError(f"was written by a newer creditguard (schema {version}): upgrade creditguard here")
        return int(meta.get("level", version))

    def _migrate(self, wait: float) -> None:
        # Of a new file. A verb changes a few small rows, and whole pages are written.
        self._all("PRAGMA page_size = 1024")
        self._all("PRAGMA auto_vacuum = INCREMENTAL")
        self._keep_a_log(wait)
        self._all("BEGIN IMMEDIATE")
        try:
            for migration in MIGRATIONS[self._level() :]:
                for statement in migration:
                    self._all(statement)
            self._all(f"INSERT OR REPLACE INTO meta VALUES ('level', {len(MIGRATIONS)})")  # noqa: S608
            self._all("COMMIT")
        except BaseException:
            self.roll_back()
            raise
        # A file of the first version does not give space back yet.
        if self._all("PRAGMA auto_vacuum") == [(0,)] and self._all("PRAGMA page_count")[0][0] < _SMALL:
            with suppress(sqlite3.OperationalError):  # somebody reads it: another time
                self.compact()

    def _keep_a_log(self, wait: float) -> None:
        """SQLite does not wait here for who makes the file at the same time, as another thread of ours may: so we do."""
        ends = seconds() + wait
        while True:
            try:
                self._all("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if str(error) != "database is locked" or seconds() > ends:
                    raise
            time.sleep(0.01)

    def compact(self) -> None:
        """Rewrite the file, without what is free in it, and so that it gives space back from now on."""
        self._all("PRAGMA auto_vacuum = INCREMENTAL")
        self._all("VACUUM")

    def roll_back(self) -> None:
        """Undo what the open transaction has done, if there is one."""
        if self.sql.in_transaction:
            with suppress(sqlite3.Error):
                self.sql.execute("ROLLBACK")

    def _all(self, statement: str) -> list[Any]:
        return self.sql.execute(statement).fetchall()


_open: weakref.WeakSet[LedgerFile] = weakref.WeakSet()
_lost: set[tuple[int, int] | None] = set()
_kept: list[LedgerFile] = []


def let_go_of_inherited() -> None:
    """In a forked child: close the files that its parent had open, or remember that they cannot be used here."""
    for file in list(_open):
        if file.pid != os.getpid():
            _open.discard(file)
            if file.busy:
                _lost.add(file._id)  # noqa: SLF001
                _kept.append(file)
            else:
                file.close()


os.register_at_fork(after_in_child=let_go_of_inherited)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - asked by each verb, and pathlib takes three times as long
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _create(path: Path) -> None:
    """Make the file, and the directories of the default one, for this user alone, whatever the umask. Leaves alone what exists."""
    if path.exists():
        return
    if path == default_path():
        _create_directory(path.parent)
    elif not path.parent.exists():  # a slip of the pen: a ledger of one's own there would count nobody's holds
        raise NotOursError(f"cannot be made: there is no folder {path.parent}")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return  # another process was quicker
    os.fchmod(fd, 0o600)
    os.close(fd)


def _create_directory(path: Path) -> None:
    if path.exists():
        return
    _create_directory(path.parent)
    with suppress(FileExistsError):  # another process was quicker
        path.mkdir(mode=0o700)
        path.chmod(0o700)
