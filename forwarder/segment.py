"""One file of a spool. Owns its name, its repair and its writing; knows nothing of other segments."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from forwarder.frame import frames

_SUFFIX = ".segment"


@dataclass
class Segment:
    """What is known of one file without reading it through."""

    path: Path
    first: int
    """No record in it has a lower offset. Its name."""
    size: int
    """Bytes that are committed: a reader looks no further."""
    started_ns: int
    """Receive time of its first record; 0 while it has none."""

    @classmethod
    def found(cls, path: Path) -> Segment:
        """A segment left by an earlier run."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            first_frame = next(frames(fd, 0, size), None)
        finally:
            os.close(fd)
        return cls(path, int(path.stem), size, first_frame.received_ns if first_frame else 0)


class Writer:
    """Appends to one segment. Nothing here waits for the disk except `sync`."""

    def __init__(self, segment: Segment, fd: int) -> None:
        self.segment = segment
        self._fd = fd
        self._torn = False

    @classmethod
    def create(cls, directory: Path, first: int) -> Writer:
        path = directory / f"{first:020d}{_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        return cls(Segment(path, first, 0, 0), fd)

    @classmethod
    def reopen(cls, segment: Segment) -> tuple[Writer, int]:
        """Goes on with the last segment of an earlier run: cuts its torn tail. Also returns the next offset."""
        fd = os.open(segment.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        end, position = segment.first, 0
        for frame in frames(fd, 0, segment.size):
            if frame.offset >= end:
                end, position = frame.end, frame.end_position
        if position < segment.size:
            os.ftruncate(fd, position)
            segment.size = position
        return cls(segment, fd), end

    def append(self, frame: bytes, received_ns: int) -> None:
        """All of the frame or, with OSError, nothing of it."""
        if self._torn:
            self._mend()
        rest = memoryview(frame)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            self._torn = True
            self._mend()
            raise
        self.segment.started_ns = self.segment.started_ns or received_ns
        self.segment.size += len(frame)

    def _mend(self) -> None:
        os.ftruncate(self._fd, self.segment.size)
        self._torn = False

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def found_in(directory: Path) -> list[Segment]:
    """The segments of an earlier run, oldest first."""
    names = sorted(x.name for x in directory.iterdir() if re.fullmatch(rf"[0-9]{{20}}{re.escape(_SUFFIX)}", x.name))
    return [Segment.found(directory / name) for name in names]
