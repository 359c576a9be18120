"""What one run leaves for the next, also after kill -9: 64 bytes in a mapped file. Owns that file."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from datetime import UTC, datetime
from pathlib import Path

from msgspec import UNSET

from ecs_mappings.event import Loss
from sensor.frames import SensorFact
from tocsin.errors import TocsinError

_MAGIC = b"tocsin1\0"
_LAYOUT = struct.Struct("@8s16sQQQQ")  # native: each number is one aligned store
_ASSIGNED, _ACKNOWLEDGED, _ALIVE, _CLEAN = 24, 32, 40, 48
_SIZE = 64
_NUMBER = struct.Struct("@Q")


class RunState:
    """Numbers written here survive the process (page cache), not a crash of the machine: then the boot is another."""

    def __init__(self, path: Path, run: str, now: datetime) -> None:
        """Opens the file for this run; `previous` is the report on the last one, if that did not end in order.

        A file that is no run state counts as none. Raises TocsinError when it cannot be opened.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as e:
            raise TocsinError(f"{path} cannot be opened: {e.strerror}") from e
        self._fd = fd
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            old = os.read(fd, _SIZE)
            os.ftruncate(fd, _SIZE)
            self._map = mmap.mmap(fd, _SIZE)
        except BlockingIOError as e:
            os.close(fd)
            raise TocsinError(f"{path} is in use: another sensor runs here; stop it, or set another state_dir") from e
        except OSError as e:
            os.close(fd)
            raise TocsinError(f"{path} cannot be used: {e.strerror}") from e
        self.previous = _report(old, now)
        _LAYOUT.pack_into(self._map, 0, _MAGIC, run.encode(), 0, 0, _microseconds(now), 0)

    def assigned(self, sequence: int) -> None:
        """This number has been given to an event."""
        _NUMBER.pack_into(self._map, _ASSIGNED, sequence)

    def acknowledged(self, sequence: int) -> None:
        """All events up to this one are delivered, or counted as lost."""
        _NUMBER.pack_into(self._map, _ACKNOWLEDGED, sequence)

    def alive(self, now: datetime) -> None:
        _NUMBER.pack_into(self._map, _ALIVE, _microseconds(now))

    def close(self, clean: bool) -> None:
        """`clean`: everything was delivered and nothing is left to say."""
        _NUMBER.pack_into(self._map, _CLEAN, int(clean))
        self._map.close()
        os.close(self._fd)


def _microseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def _report(old: bytes, now: datetime) -> SensorFact | None:
    if len(old) < _LAYOUT.size:
        return None
    magic, run, assigned, acknowledged, alive, clean = _LAYOUT.unpack_from(old)
    if magic != _MAGIC or clean:
        return None
    unsent = assigned - acknowledged
    name = run.rstrip(b"\0").decode("ascii", "replace")
    return SensorFact(
        action="events_lost",
        loss=Loss(stage="restart", count=unsent if unsent > 0 else UNSET),
        reason=f"run {name} ended without a stop: nobody watched until now",
        start=min(datetime.fromtimestamp(alive / 1_000_000, UTC), now),
        end=now,
    )
