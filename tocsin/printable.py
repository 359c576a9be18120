"""Text from outside, made safe to print. An event's strings are the attacker's: on a terminal they must stay text."""

from __future__ import annotations

import unicodedata


def printable(text: str, limit: int | None = None) -> str:
    r"""The text on one line: control, format and bidirectional characters become escapes such as \x1b or \u202e.

    With `limit` the result has at most that many terminal cells; what was cut shows as an ellipsis.
    """
    safe = text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)
    return safe if limit is None else _cut(safe, limit)


def _escape(c: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(c)
    if named:
        return named
    if c == "\N{NO-BREAK SPACE}":
        return " "
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cut(text: str, limit: int) -> str:
    if len(text) * 2 <= limit:
        return text
    cells = 0
    for i, c in enumerate(text):
        cells += _cells(c)
        if cells > limit or (cells == limit and i + 1 < len(text)):
            return _keep(text[:i], limit - 1) + "…"
    return text


def _keep(text: str, limit: int) -> str:
    while sum(map(_cells, text)) > limit:
        text = text[:-1]
    return text


def _cells(c: str) -> int:
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1
