"""The README's Python passes the type checkers as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEFORE = """
class Enriched:
    credits_used: int = 8
rows: list[str] = []
def enrich(row: str) -> Enriched:
    return Enriched()
"""


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["basedpyright", "--level", "error"]])
def test_the_readmes_python_is_typed(tmp_path, checker):
    pytest.importorskip(checker[0])
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "readme.py").write_text(BEFORE + block)
    (tmp_path / "pyrightconfig.json").write_text(f'{{"typeCheckingMode": "standard", "extraPaths": ["{ROOT}"]}}')
    command = [f"{Path(sys.executable).parent}/{checker[0]}", *checker[1:], "readme.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
