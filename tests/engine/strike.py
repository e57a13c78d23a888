"""An exception at one opcode of creditguard's own frames, in the thread that sets it."""

from __future__ import annotations

import dis
import sys
from pathlib import Path

import creditguard

HOME = str(Path(creditguard.__file__).parent)
ENTRY = str(Path(HOME, "guarding", "entry.py"))


_AWAITING = {
    dis.opmap[name] for name in ("SEND", "YIELD_VALUE", "JUMP_BACKWARD_NO_INTERRUPT", "YIELD_FROM") if name in dis.opmap
}
_RESUME = dis.opmap.get("RESUME")


def _is_awaiting(frame):
    """Whether the frame only passes on what another one yields to the event loop: there the interpreter takes no signal."""
    code = frame.f_code.co_code
    operation = code[frame.f_lasti]
    return operation in _AWAITING or (operation == _RESUME and code[frame.f_lasti + 1] & 3 > 1)


class Struck(Exception):
    """What a signal handler of the host raises."""


class Strike:
    """Raises `error` at the opcode of number `at`, counted over all frames of creditguard in this thread; a context manager.

    It counts from the first frame of `entry.py` on: before that there is nothing that could be lost. `seen` is how many there were.
    """

    def __init__(self, at, error=None, spare=()):
        self.at, self.error, self.seen, self._begun = at, error, 0, False
        self._spare = spare

    def __enter__(self):
        sys.settrace(self._call)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def _call(self, frame, event, arg):
        code = frame.f_code
        self._begun = self._begun or code.co_filename == ENTRY
        if not self._begun or not code.co_filename.startswith(HOME) or self._spares(frame):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._opcode

    def _spares(self, frame):
        """Whether this is one of the functions that are spared, or called by one."""
        while frame and frame.f_code.co_filename.startswith(HOME):
            if frame.f_code.co_name in self._spare:
                return True
            frame = frame.f_back
        return False

    def _opcode(self, frame, event, arg):
        if event == "opcode" and not _is_awaiting(frame):
            self.seen += 1
            if self.seen == self.at:
                sys.settrace(None)
                raise self.error
        return self._opcode
