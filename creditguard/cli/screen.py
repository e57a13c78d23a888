r"""The one place from which the command line writes to stderr: lines (events, messages), and the row of `run --progress`.

On a terminal a command writes to the same screen, and nobody but the terminal knows where its cursor is. So, from its start on:

- A line of ours begins on a line of its own. As many spaces as the terminal is wide lead from column 0 to the end of that very
  line, and from anywhere else into the next one.
- The row is the terminal's last. A scroll region keeps it apart, and the terminal is said to be one row shorter (`stty size`),
  so that no command, be it an editor or a pager, writes there. It goes when the command is stopped or ends.
- While the command reads single keys, as editors and pagers do, the screen is its own: nothing is written, and lines wait.

Each write is one system call, which the kernel does not mix with the command's.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import termios
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import CLOCK_MONOTONIC, clock_gettime
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from creditguard.cli.child import Child

_FEWEST_ROWS = 4
_LOOK = 0.2
"""Seconds between two looks at whether the terminal was resized, or the text is another."""
_ANEW = 3.0
"""Seconds after which the row is written anew all the same: the command may have cleared the screen, or reset the terminal."""
_PATIENCE_MS = 1000

# To set a scroll region moves the cursor: hence the saving. Down and up again scrolls from the last row, and does nothing elsewhere.
_OFF_THE_LAST_ROW = "\x1b7\x1b[r\x1b8\x1bD\x1b[A"
_CLEAR_BELOW = "\x1b7\x1b[m\x1bE\x1b[J\x1b8"
_ROW = "\x1b7\x1b[m\x1b[1;{}r\x1b[{};1H{}\x1b[K\x1b8"
_NO_ROW = "\x1b7\x1b[m\x1b[r\x1b[{};1H\x1b[K\x1b8"

_WILL = "printf '\\0337\\033[r\\033[{};1H\\033[K\\0338' >{tty}; stty rows {} <{tty}"

_Size: TypeAlias = tuple[int, int, int, int]
"""Rows and columns, width and height in pixels."""
_NONE: _Size = 0, 0, 0, 0


class Screen:
    """stderr, whatever it is. What cannot be written is lost: a stderr that is closed or gone is nobody's business here."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque()
        self._command: Child | None = None
        self._mingled = False
        """A command has written to this terminal as well."""
        self._keys = 0
        """How the terminal read keys before the command came."""
        self._lock = threading.Lock()  # over what follows
        self._text: Callable[[int], str] | None = None
        self._size = self._taken = _NONE
        """The terminal's size, and what we have made of it, while the row is there."""
        self._shown: tuple[str, float] = "", 0.0

    def write(self, text: str) -> None:
        """Write whole lines, of which the last has no newline at its end."""
        self._kept.append(text)
        self._let_out()

    @contextmanager
    def shared_with(self, command: Child, row: Callable[[int], str] | None = None) -> Iterator[None]:
        """While the command runs; `row` makes the text of the row for so many columns."""
        if _is_terminal():
            self._keys, self._command, self._mingled = _keys(), command, True
            self._text = row
            self.look()
        try:
            yield
        finally:
            with self._lock:
                self._text = None
                self._drop()
            self._command = None
            self._let_out()

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """While we and the command are stopped, and the terminal is the shell's."""
        with self._lock:
            text, self._text = self._text, None
            self._drop()
        yield
        self._text = text

    def look(self) -> float | None:
        """Write the row, if there is something new; when to look again."""
        with self._lock:
            if self._text and not self._own() and self._in_foreground() and can_write(0):
                self._show(self._text)
        self._let_out()
        return _LOOK if self._command else None

    def _let_out(self) -> None:
        if self._command and self._own():
            return
        apart = ""
        if self._mingled and (columns := _size()[1]):
            apart = f"{' ' * columns}\r\x1b[K"
        with suppress(IndexError):  # another thread was quicker
            while self._kept:
                _put(f"{apart}{self._kept.popleft()}\n")

    def _own(self) -> bool:
        """The command has the screen for itself."""
        return _keys() != self._keys

    def _in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(2) in {os.getpgrp(), self._command and self._command.group}
        except OSError:
            return True  # not the terminal of our session: then there are no jobs

    def _show(self, text: Callable[[int], str]) -> None:
        size, now = _size(), clock_gettime(CLOCK_MONOTONIC)
        rows, columns, width, height = size
        clear = ""
        if size != self._taken or size == _NONE:  # new, or resized since; or a terminal that does not know its size
            if rows < _FEWEST_ROWS or not columns:
                self._drop()
                return
            # One pixel too many: if somebody makes the window one row smaller, its size is not the same as ours.
            self._size, self._taken = size, (rows - 1, columns, width, height * (rows - 1) // rows + 1)
            _resize(self._taken)
            with suppress(OSError):  # a terminal of another container has no name here
                self._will(_WILL.format(rows, rows, tty=os.ttyname(2)))
            clear = _CLEAR_BELOW
        line = text(columns - 1)
        if clear or line != self._shown[0] or now - self._shown[1] >= _ANEW:
            _put(f"{_OFF_THE_LAST_ROW}{clear}{_ROW.format(self._size[0] - 1, self._size[0], line)}")
            self._shown = line, now

    def _drop(self) -> None:
        if self._taken == _NONE:
            return
        if _size() == self._taken:
            _resize(self._size)
        self._taken = _NONE
        if can_write(_PATIENCE_MS):
            _put(_NO_ROW.format(self._size[0]))
        self._will(":")

    def _will(self, shell_command: str) -> None:
        if self._command:
            self._command.on_vanishing(shell_command)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _put(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # closed, a broken pipe, or none at all


def can_write(patience_ms: int) -> bool:
    """stderr takes what is written: nobody has pressed Ctrl-S, and a pipe is not full."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in poll.poll(patience_ms))


def _keys() -> int:
    try:
        return int(termios.tcgetattr(2)[3]) & termios.ICANON
    except termios.error:
        return 0  # hung up


def _size() -> _Size:
    try:
        return struct.unpack("HHHH", fcntl.ioctl(2, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return _NONE


def _resize(size: _Size) -> None:
    with suppress(OSError):
        fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", *size))


SCREEN = Screen()
"""This process has one."""
