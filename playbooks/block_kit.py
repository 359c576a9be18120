"""Slack messages that Slack takes whole, whatever is in the event. Owns Slack's limits and the making harmless of text.

One text that is too long, or empty, makes Slack refuse the whole message. Text from outside goes only into `plain_text`
objects, where Slack reads no markup, and is escaped all the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

MAX_BLOCKS = 50
MAX_HEADER_CHARS = 150
MAX_SECTION_CHARS = 3000
MAX_FIELDS = 10
MAX_FIELD_CHARS = 2000
MAX_FALLBACK_CHARS = 1000
MAX_MESSAGE_CHARS = 13_000
"""Of the whole JSON; Slack refuses from about 13,200."""

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_SCALES = (1.0, 0.5, 0.25, 0.1)

Block = dict[str, Any]


def harmless(text: str, limit: int, *, lines: bool = False) -> str:
    """The text, escaped, within `limit` characters: nothing in it commands Slack, a terminal or the reader's eye.

    Control characters become their pictures; direction overrides, invisible and broken characters become U+FFFD. Line
    ends stay if `lines`. What is cut ends in an ellipsis; what is empty is a dash.
    """
    kept: list[str] = []
    size = 0
    for piece in _pieces(text.strip(), lines):
        kept.append(piece)
        size += len(piece)
        if size > limit:
            while size > limit - 1:
                size -= len(kept.pop())
            return "".join(kept) + "…"
    return "".join(kept) or "-"


def header(text: str, scale: float = 1.0) -> Block:
    return {"type": "header", "text": _plain(harmless(text, int(MAX_HEADER_CHARS * scale)))}


def section(text: str, scale: float = 1.0) -> Block:
    return {"type": "section", "text": _plain(harmless(text, int(MAX_SECTION_CHARS * scale), lines=True))}


def fields(pairs: Sequence[tuple[str, str]], limit: int = MAX_FIELD_CHARS) -> Block:
    """Ten labelled values at most; further ones are dropped. `limit` is each one's, label included."""
    shown = [f"{label}\n{harmless(value, limit - len(label) - 1)}" for label, value in pairs[:MAX_FIELDS]]
    return {"type": "section", "fields": [_plain(text) for text in shown]}


def link(base: str, path: Sequence[str], text: str) -> Block:
    """The only markup there is: `base` is the operator's, the parts of `path` are quoted, `text` is the program's."""
    url = "/".join([quote(base.rstrip("/"), safe=":/[]@%~"), *(quote(part, safe="") for part in path)])
    return {"type": "section", "text": {"type": "mrkdwn", "text": f"<{url}|{text}>"}}


def message(fallback: str, blocks: Callable[[float], list[Block]]) -> bytes:
    """The body for an incoming webhook. `blocks(scale)` is asked for ever shorter ones until the whole fits.

    `fallback` is what notifications show; Slack must neither read markup in it nor fetch what it names.
    """
    quiet = {"mrkdwn": False, "parse": "none", "link_names": False, "unfurl_links": False, "unfurl_media": False}
    for scale in _SCALES:
        text = harmless(fallback, int(MAX_FALLBACK_CHARS * scale))
        body = msgspec.json.encode({"text": text, "blocks": blocks(scale)[:MAX_BLOCKS], **quiet})
        if len(body.decode()) <= MAX_MESSAGE_CHARS:
            return body
    raise ValueError("the blocks do not shrink with their scale")


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _pieces(text: str, lines: bool) -> Iterator[str]:
    for c in text:
        if c in _ESCAPES:
            yield _ESCAPES[c]
        elif c == "\n" and lines:
            yield c
        elif unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            yield chr(0x2400 + ord(c)) if ord(c) < 0x20 else "\ufffd"
        else:
            yield c
