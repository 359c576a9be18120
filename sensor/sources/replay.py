"""A recorded capture, read again: the same events, byte for byte, without root and without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def replay(path: Path) -> Iterator[bytes]:
    """The encoded events of a recording, in order. A truncated or foreign file is a TocsinError naming the position."""
    yield from ()
