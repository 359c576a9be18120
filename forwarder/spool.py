"""The durable queue of one topic: segment files, append-only. Owns offsets; knows neither sinks nor cursors.

Live path: `append` writes to the page cache, which survives kill -9; `sync` is for a thread in the background.
Offsets count records from 0 and are never given out twice, not even across a crash of the machine: then the tail may be
gone while a receiver already knows its offsets, so the spool goes on far above all that can have been given out.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from forwarder.files import replace, sync_directory
from forwarder.frame import pack, portions
from forwarder.segment import Writer, found_in

JUMP = 1_000_000_000
"""More records than can be given out between two syncs."""
_STATE = "state.json"


class _State(msgspec.Struct):
    """What the segments do not tell."""

    boot: str = ""
    clean: bool = True
    jumps: list[tuple[int, int]] = []
    """Ranges of offsets that were never given out."""


class Extent(NamedTuple):
    """Where the records from some offset on are to be found."""

    path: Path
    first: int
    """No lower offset is in this file."""
    end: int
    """No offset from here on is in this file."""
    size: int


class Dropped(NamedTuple):
    """A segment that was removed: its offsets, and the span of its receive times (ns)."""

    first: int
    end: int
    start_ns: int
    end_ns: int


class Spool:
    """Safe to share between threads. `on_drop` is told of every removed segment, with the spool's lock held."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        segment_bytes: int,
        boot_id: str,
        at_least: int = 0,
        on_drop: Callable[[Dropped], None] = lambda dropped: None,
    ) -> None:
        """Opens or makes the spool in `directory`; repairs its tail. `at_least` is the highest offset a sink knows."""
        self.directory = directory
        self.on_drop = on_drop
        self.appended = 0
        """Records taken since this start."""
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._changed = threading.Condition(threading.RLock())
        self._unsynced: list[Writer] = []
        self._directory_dirty = True
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._state = self._read_state()
        crashed = not self._state.clean and self._state.boot != boot_id
        self._segments = found_in(directory)
        self._next, self._writer = self._open_last()
        self.jumped = crashed or at_least > self._next
        """The last records of an earlier run may be lost, nobody knows how many."""
        if self.jumped:
            self._jump(max(self._next, at_least) + JUMP)
        self._dirty = True
        self._bytes = sum(s.size for s in self._segments)
        self._write_state(_State(boot_id, False, [j for j in self._state.jumps if j[1] > self._segments[0].first]))

    # reading

    @property
    def next_offset(self) -> int:
        """The offset that the next record will get."""
        return self._next

    @property
    def first_offset(self) -> int:
        """No older record is kept."""
        return self._segments[0].first

    @property
    def size_bytes(self) -> int:
        return self._bytes

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    def wait(self, until: Callable[[], bool]) -> None:
        """Blocks until `until()` holds; it is asked again after every append and every `wake`."""
        with self._changed:
            self._changed.wait_for(until)

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def extent(self, offset: int) -> Extent:
        """The segment that holds `offset`, or the oldest one when it is gone."""
        with self._changed:
            return self._extent(max(0, bisect.bisect_right(self._segments, offset, key=lambda s: s.first) - 1))

    def extent_since(self, received_ns: int) -> Extent:
        """Where the oldest record received at or after that time may be."""
        with self._changed:
            later = (i for i, s in enumerate(self._segments) if not 0 < s.started_ns < received_ns)
            return self._extent(max(0, next(later, len(self._segments)) - 1))

    def span(self, offsets: range) -> tuple[int, int]:
        """Receive times (ns) between which these records came, as near as the segments tell; gone ones excepted."""
        with self._changed:
            starts = [s.started_ns for s in self._segments if s.started_ns]
            i = bisect.bisect_right(self._segments, offsets.start, key=lambda s: s.first) - 1
            j = bisect.bisect_left(self._segments, offsets.stop, key=lambda s: s.first)
            before = self._segments[max(0, i)].started_ns or min(starts, default=time.time_ns())
            behind = self._segments[j].started_ns if j < len(self._segments) else 0
            return before, behind or time.time_ns()

    def missing(self, first: int, end: int) -> int:
        """How many offsets within [first, end) were really given out."""
        return end - first - sum(max(0, min(end, b) - max(first, a)) for a, b in self._state.jumps)

    # writing

    def append(self, lines: Sequence[bytes], received_ns: int | None = None) -> int:
        """Takes the records, each non-empty and without a newline; returns the first one's offset.

        Beyond `max_bytes` the oldest segments go. Raises OSError when the system cannot write: then a first part of a
        long batch may have been taken, and the whole may be appended again.
        """
        now = time.time_ns() if received_ns is None else received_ns
        with self._changed:
            first = self._next
            for portion in portions(lines):
                frame = pack(self._next, now, portion)
                self._make_way(len(frame))
                self._writer.append(frame, now)
                self._bytes += len(frame)
                self._next += len(portion)
                self.appended += len(portion)
                self._dirty = True
            self._changed.notify_all()
            return first

    def roll(self) -> None:
        """Seals the segment being written and starts the next one."""
        with self._changed:
            if self._writer.segment.first == self._next:
                return  # nothing in it
            # The new file first: there is always one whose name tells the next offset.
            writer = Writer.create(self.directory, self._next)
            self._unsynced.append(self._writer)
            self._segments.append(writer.segment)
            self._writer, self._directory_dirty = writer, True

    def oldest(self) -> Dropped | None:
        """What `drop_oldest` would remove: the oldest sealed segment, if there is one."""
        with self._changed:
            if len(self._segments) < 2:
                return None
            old, following = self._segments[0], self._segments[1]
            return Dropped(old.first, following.first, old.started_ns, following.started_ns or time.time_ns())

    def drop_oldest(self) -> bool:
        """Removes the oldest sealed segment, delivered or not; False when only the one being written is left."""
        with self._changed:
            dropped = self.oldest()
            if dropped is None:
                return False
            old = self._segments[0]
            with contextlib.suppress(FileNotFoundError):
                os.truncate(old.path, 0)  # frees the room even while a reader has the file open
                old.path.unlink()
            self.on_drop(dropped)
            del self._segments[0]
            self._bytes -= old.size
            return True

    def sync(self) -> None:
        """Brings all that was appended so far to the disk. May take long; raises OSError."""
        with self._changed:
            sealed, writer = list(self._unsynced), self._writer
            dirty, self._dirty = self._dirty, False
            directory_dirty, self._directory_dirty = self._directory_dirty, False
        try:
            for old in sealed:
                old.sync()
            if dirty:
                writer.sync()
            if directory_dirty:
                sync_directory(self.directory)
        except OSError:
            self._dirty = self._directory_dirty = True
            raise
        with self._changed:
            del self._unsynced[: len(sealed)]
        for old in sealed:
            old.close()

    def close(self) -> None:
        """Syncs, and notes that nothing is missing. No other thread may use the spool any more."""
        try:
            self.sync()
            self._write_state(_State(self._state.boot, True, self._state.jumps))
        finally:
            for writer in [*self._unsynced, self._writer]:
                writer.close()

    # inside

    def _make_way(self, size: int) -> None:
        """Room for one frame within the bounds."""
        if self._writer.segment.size + size > self._segment_bytes:
            self.roll()
        while self._bytes + size > self._max_bytes and self.drop_oldest():
            pass

    def _extent(self, i: int) -> Extent:
        segment = self._segments[i]
        end = self._segments[i + 1].first if i + 1 < len(self._segments) else self._next
        return Extent(segment.path, segment.first, end, segment.size)

    def _open_last(self) -> tuple[int, Writer]:
        if not self._segments:
            writer = Writer.create(self.directory, 0)
            self._segments.append(writer.segment)
            return 0, writer
        writer, next_offset = Writer.reopen(self._segments[-1])
        return next_offset, writer

    def _jump(self, to: int) -> None:
        """Goes on at `to`. The state first: without it the jump would count as lost records."""
        self._state.jumps = [*(j for j in self._state.jumps if j[1] <= self._next), (self._next, to)]
        self._write_state(self._state)
        self._next = to
        self._unsynced.append(self._writer)
        self._writer = Writer.create(self.directory, to)
        self._segments.append(self._writer.segment)

    def _read_state(self) -> _State:
        path = self.directory / _STATE
        try:
            return msgspec.json.decode(path.read_bytes(), type=_State)
        except FileNotFoundError:
            return _State(clean=not any(self.directory.iterdir()))
        except msgspec.MsgspecError:
            return _State(clean=False)

    def _write_state(self, state: _State) -> None:
        self._state = state
        replace(self.directory / _STATE, msgspec.json.encode(state), sync=True)
