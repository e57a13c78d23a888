"""What a job is called whose name nobody gave: after what its command runs, and not after what runs it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from creditguard.rules.text import printable

_PYTHON = ({"-W", "-X", "--check-hash-based-pycs"}, {"-c"})
_SHELL = ({"-o", "-O", "--rcfile", "--init-file"}, {"-c", "-s"})
_NODE = ({"-r", "-C", "--require", "--import", "--conditions"}, {"-e", "-p", "--eval", "--print"})
_INTERPRETERS = {
    **dict.fromkeys(("python", "pypy"), _PYTHON),
    **dict.fromkeys(("sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"), _SHELL),
    **dict.fromkeys(("node", "nodejs"), _NODE),
    "ruby": ({"-r", "-I", "-C"}, {"-e"}),
    "perl": ({"-I"}, {"-e", "-E"}),
    "env": ({"-u", "-C", "--unset", "--chdir"}, {"-S", "--split-string"}),
}
"""Their options that have a value in the next word, and those that bring the program itself along, which has no name."""

_LONGEST = 200


def job_name(argv: Sequence[str]) -> str:
    """`batch.py` for `python3 -u batch.py`, `pkg.mod` for `python3 -m pkg.mod`, `batch` for `/opt/jobs/batch`."""
    return printable(_name(argv))[:_LONGEST].strip() or "unnamed"


def _name(argv: Sequence[str]) -> str:
    name = _base(argv[0])
    kind = re.sub(r"-?\d[\d.]*$", "", name)  # python3.11
    if kind not in _INTERPRETERS:
        return name
    valued, programs = _INTERPRETERS[kind]
    words = iter(argv[1:])
    for word in words:
        option = f"-{word[-1]}" if re.fullmatch(r"[-+][A-Za-z]+", word) else word  # -uc is -u -c
        if word == "-" or option in programs:
            break
        if option == "-m" and (valued, programs) == _PYTHON:
            return next(words, name)
        if option in valued:
            next(words, None)
        elif kind == "env" and re.match(r"[A-Za-z_]\w*=", word):
            continue
        elif not word.startswith(("-", "+")):
            return _name([word, *words]) if kind == "env" else _base(word)
    return name


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path
