"""The bytes of a spool: records in checksummed frames. Owns the layout; knows no files by name.

A frame holds up to MAX_RECORDS lines that came together:
  magic 8 | crc32 of all that follows 4 | length of the lines 4 | first offset 8 | receive time 8 (ns) | count 4 | lines
Each line ends with a newline and none is empty, so the two newlines of the magic never occur inside lines: whatever an
attacker writes into an event, a search for the next frame behind damaged bytes cannot be led to a forged one.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ecs_mappings.event import MAX_DOCUMENT_BYTES

MAGIC = b"\n\nTOCSN1"
_HEADER = struct.Struct("<8sIIQQI")
_CHECKED = struct.Struct("<IQQI")
_CHECKED_FROM = 12
HEADER_BYTES = _HEADER.size

MAX_RECORDS = 512
_SOFT_BYTES = 1024 * 1024
MAX_FRAME_BYTES = HEADER_BYTES + _SOFT_BYTES + MAX_DOCUMENT_BYTES + 1
_CHUNK_BYTES = 1024 * 1024


class Frame(NamedTuple):
    offset: int
    """Of its first record."""
    received_ns: int
    """Wall clock."""
    records: int
    payload: bytes
    position: int
    """Of its first byte in the file."""

    @property
    def end(self) -> int:
        """Offset behind its last record."""
        return self.offset + self.records

    @property
    def end_position(self) -> int:
        return self.position + HEADER_BYTES + len(self.payload)

    def lines(self) -> list[bytes]:
        return self.payload[:-1].split(b"\n")


def pack(offset: int, received_ns: int, lines: Sequence[bytes]) -> bytes:
    """One frame. The lines must be non-empty, without newlines, and few enough (see `portions`)."""
    payload = b"\n".join([*lines, b""])
    checked = _CHECKED.pack(len(payload), offset, received_ns, len(lines))
    return b"".join((MAGIC, zlib.crc32(payload, zlib.crc32(checked)).to_bytes(4, "little"), checked, payload))


def portions(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The lines in runs that fit one frame each."""
    if len(lines) <= MAX_RECORDS and sum(map(len, lines)) + len(lines) <= _SOFT_BYTES:
        if lines:
            yield lines
        return
    start = size = 0
    for i, line in enumerate(lines):
        if i > start and (i - start == MAX_RECORDS or size + len(line) + 1 > _SOFT_BYTES):
            yield lines[start:i]
            start, size = i, 0
        size += len(line) + 1
    yield lines[start:]


def frames(fd: int, position: int, end: int) -> Iterator[Frame]:
    """The good frames of a file within [position, end), in order; damaged bytes between them are passed over."""
    chunk = _CHUNK_BYTES
    while position < end:
        data = os.pread(fd, min(chunk, end - position), position)
        if not data:
            return
        at = 0
        while (frame := _parse(data, at, position)) is not None:
            yield frame
            at = frame.end_position - position
        if at == 0 and chunk < MAX_FRAME_BYTES and position + len(data) < end:
            chunk = MAX_FRAME_BYTES  # the frame may be longer than the chunk
            continue
        if at == 0:  # damaged: look for the next frame
            found = data.find(MAGIC, 1)
            at = found if found >= 0 else max(1, len(data) - len(MAGIC) + 1)
        position += at


def _parse(data: bytes, at: int, position: int) -> Frame | None:
    """The frame that starts at `at`; None when there is none, or not all of it."""
    if len(data) - at < HEADER_BYTES:
        return None
    magic, crc, length, offset, received_ns, count = _HEADER.unpack_from(data, at)
    stop = at + HEADER_BYTES + length
    if magic != MAGIC or stop > len(data) or length > MAX_FRAME_BYTES:
        return None
    payload = data[at + HEADER_BYTES : stop]
    if zlib.crc32(payload, zlib.crc32(data[at + _CHECKED_FROM : at + HEADER_BYTES])) != crc or count == 0:
        return None
    return Frame(offset, received_ns, count, payload, position + at)
