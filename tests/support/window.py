"""A terminal whose screen the test reads: a real pty, and pyte in place of its window."""

from __future__ import annotations

import copy
import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

import pyte
from processes import PATIENCE


class _Window(pyte.HistoryScreen):
    """With the alternate screen, which pyte does not know."""

    _main: Any = None

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        super().set_mode(*modes, **kwargs)
        if 1049 in modes and self._main is None:
            self._main = copy.deepcopy(self.buffer), copy.copy(self.cursor), self.margins
            self.erase_in_display(2)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        super().reset_mode(*modes, **kwargs)
        if 1049 in modes and self._main is not None:
            buffer, self.cursor, _ = self._main
            self.buffer.clear()
            self.buffer.update(buffer)
            self._main = None

    def resize(self, lines: int, columns: int) -> None:
        """As most terminals: what no longer fits goes up, with the cursor."""
        gone = max(self.lines - lines, 0)
        for y in range(gone):
            self.history.top.append(copy.copy(self.buffer[y]))
        super().resize(lines, columns)
        self.cursor.y = max(self.cursor.y - gone, 0)

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        if not private:
            super().select_graphic_rendition(*attributes)


class Terminal:
    """A session on a new terminal of so many rows and columns."""

    def __init__(self, *argv: str, rows: int = 12, columns: int = 80, **env: str) -> None:
        self.window = _Window(columns, rows, history=1000, ratio=0.5)
        self._stream = pyte.ByteStream(self.window)
        self.raw = b""
        self.fd, slave = pty.openpty()
        self._set_size()
        environment = {**os.environ, "TERM": "xterm-256color", **env}
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=_control,  # noqa: PLW1509
        )
        os.close(slave)

    def _set_size(self) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", self.window.lines, self.window.columns, 0, 0))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, as programs are told."""
        return struct.unpack("HHHH", fcntl.ioctl(self.fd, termios.TIOCGWINSZ, bytes(8)))[:2]

    def resize(self, rows: int, columns: int) -> None:
        self.window.resize(rows, columns)
        self._set_size()

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    @property
    def lines(self) -> list[str]:
        """What the window shows, without the spaces at the ends of lines."""
        return [line.rstrip() for line in self.window.display]

    @property
    def scrolled(self) -> list[str]:
        """What has been scrolled out of the window, and then what it shows."""
        top = ["".join(line[x].data for x in range(self.window.columns)).rstrip() for line in self.window.history.top]
        return top + self.lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Show what comes until the condition holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"never: {what}\n{self.text}"
            self.feed(0.05)

    def shows(self, pattern: str) -> None:
        self.until(lambda: re.search(pattern, self.text, re.MULTILINE), pattern)

    def feed(self, within: float) -> bool:
        """Show what comes; False at the end of the session."""
        if select.select([self.fd], [], [], within)[0]:
            try:
                block = os.read(self.fd, 65536)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return False
            self.raw += block
            self._stream.feed(block)
        return True

    def for_a_while(self, seconds: float) -> None:
        """Show what comes for so long: for what is to be kept up, not for what is to come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.feed(0.05):
            pass

    def code(self) -> int:
        """Wait for its end; the exit code."""
        end = time.monotonic() + PATIENCE
        while self.feed(0.1):
            assert time.monotonic() < end, f"it does not end\n{self.text}"
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


def _control() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_a_terminal(*arguments: str, columns: int = 80, **env: str) -> tuple[str, int]:
    """What a command of creditguard wrote to a terminal of so many columns, and its exit code."""
    command = [sys.executable, "-m", "creditguard", *arguments]
    terminal = Terminal("env", "-u", "COLUMNS", "-u", "LINES", *command, rows=50, columns=columns, **env)
    try:
        code = terminal.code()
    finally:
        terminal.close()
    return terminal.raw.decode().replace("\r\n", "\n"), code


def without_colour(text: str) -> str:
    """The text, without the escapes that colour it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
