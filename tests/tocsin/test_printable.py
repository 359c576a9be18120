"""Attackers' strings stay text on a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tocsin.printable import printable


def cells(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def test_controls_become_visible() -> None:
    assert printable("a\x1b[31m\r\n\t\x00\x9b\u202e\u2028b") == "a\\x1b[31m\\r\\n\\t\\x00\\x9b\\u202e\\u2028b"
    assert printable("naïve 日本 ✓") == "naïve 日本 ✓"
    assert printable("\U000e0001\ud800") == "\\U000e0001\\ud800"


def test_cut_by_cells() -> None:
    assert printable("abcdef", 6) == "abcdef"
    assert printable("abcdefg", 6) == "abcde…"
    assert printable("日本語日本", 6) == "日本…"


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_always_printable_and_never_wider(text: str, limit: int) -> None:
    assert printable(text).isprintable()
    shown = printable(text, limit)
    assert shown.isprintable()
    assert cells(shown) <= limit
    if cells(printable(text)) <= limit:
        assert shown == printable(text)
