"""A text that is cut to fit a line of a terminal: by its columns, and not by its characters."""

from __future__ import annotations

import pytest

from creditguard.rules.text import shortened, width


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("nightly", 7, "nightly"),
        ("nightly", 6, "night…"),
        ("夜間バッチ", 10, "夜間バッチ"),
        ("夜間バッチ", 8, "夜間バ…"),
        ("cafe\u0301s", 5, "cafe\u0301s"),
        ("nightly", 0, "…"),
    ],
)
def test_a_text_is_cut_at_the_columns_that_it_takes(text, columns, expected):
    found = shortened(text, columns, "…")
    assert found == expected
    assert width(found) <= max(columns, width("…"))
