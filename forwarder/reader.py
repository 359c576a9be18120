"""Reads a spool in order, from the page cache as a rule. Owns the open file; decides nothing."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from pathlib import Path
from typing import NamedTuple

from forwarder.frame import Frame, frames
from forwarder.spool import Extent, Spool

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Records without a hole between them."""

    offset: int
    """Of the first one. Above the offset asked for when what lies between cannot be read any more."""
    lines: list[bytes]

    @property
    def end(self) -> int:
        return self.offset + len(self.lines)


class Reader:
    """One reader's place in one spool. For one thread. Reading on where the last batch ended needs no search."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._path: Path | None = None
        self._fd = -1
        self._place = (0, 0)
        """(offset, position) of the frame to go on with."""

    def read(self, offset: int, max_records: int, max_bytes: int) -> Batch:
        """The next records from `offset` on, at least one whole frame; below the spool's next offset only.

        A batch without lines tells that nothing is readable below its offset. Raises OSError when reading fails for a
        reason that may pass.
        """
        extent = self._spool.extent(offset)
        try:
            return self._read(extent, max(offset, extent.first), max_records, max_bytes)
        except FileNotFoundError:  # dropped since
            return Batch(extent.end, [])
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            log.error("%s cannot be read: %s", extent.path, e, extra={"event.action": "spool_unreadable"})
            return Batch(extent.end, [])

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._path = -1, None

    def _read(self, extent: Extent, offset: int, max_records: int, max_bytes: int) -> Batch:
        self._open(extent.path)
        start = self._place[1] if self._place[0] <= offset else 0
        lines: list[bytes] = []
        size, first = 0, offset
        for frame in frames(self._fd, start, extent.size):
            if frame.end <= offset:
                continue
            if not lines:
                first = max(offset, frame.offset)
                lines = frame.lines()[first - frame.offset :]
            elif frame.offset != first + len(lines) or len(lines) + frame.records > max_records:
                break
            else:
                lines += frame.lines()
            self._place = (frame.end, frame.end_position)
            size += len(frame.payload)
            if len(lines) >= max_records or size >= max_bytes:
                break
        return Batch(first, lines) if lines else Batch(extent.end, [])

    def _open(self, path: Path) -> None:
        if path == self._path:
            return
        self.close()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._path, self._place = path, (0, 0)


def offset_since(spool: Spool, received_ns: int) -> int:
    """The offset of the oldest record received at or after that time; the next offset when there is none."""
    extent = spool.extent_since(received_ns)
    try:
        fd = os.open(extent.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # dropped since: all that is kept is younger
        return spool.first_offset
    try:
        young: itertools.dropwhile[Frame] = itertools.dropwhile(
            lambda frame: frame.received_ns < received_ns, frames(fd, 0, extent.size)
        )
        found = next(young, None)
        return found.offset if found else extent.end
    finally:
        os.close(fd)
