"""Keeps the spools within the disk: what every sink has taken goes first. Owns retention and the full disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from forwarder.files import is_full
from forwarder.spool import Spool
from tocsin.errors import RetryLater

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0


class Room:
    def __init__(self, spools: Mapping[str, Spool], delivered: Callable[[str], int], retain_s: float) -> None:
        """`delivered(topic)` is the offset below which every sink has taken all."""
        self._spools = spools
        self._delivered = delivered
        self._retain_ns = int(retain_s * 1e9)
        self._failing = False

    def append(self, topic: str, lines: Sequence[bytes]) -> int:
        """Takes the records, making room on a full disk; the first one's offset.

        Raises RetryLater when the system cannot write: the producers hold, and send again.
        """
        while True:
            try:
                offset = self._spools[topic].append(lines)
                self._failing = False
                return offset
            except OSError as e:
                if not (is_full(e) and self._make()):
                    if not self._failing:
                        log.error("the spool cannot be written: %s", e, extra={"event.action": "spool_unwritable"})
                    self._failing = True
                    raise RetryLater(f"the spool cannot be written: {e.strerror}", RETRY_AFTER_S) from e

    def expire(self) -> None:
        """Removes segments that every sink has taken and that are older than the retention."""
        limit = time.time_ns() - self._retain_ns
        for topic, spool in self._spools.items():
            while (oldest := spool.oldest()) and oldest.end <= self._delivered(topic) and oldest.end_ns < limit:
                spool.drop_oldest()

    def _make(self) -> bool:
        """Frees one segment: the oldest that all sinks have taken, else the oldest of the largest spool."""
        for topic, spool in self._spools.items():
            oldest = spool.oldest()
            if oldest is not None and oldest.end <= self._delivered(topic):
                return spool.drop_oldest()
        for topic, spool in self._spools.items():
            if spool.next_offset > spool.first_offset and self._delivered(topic) >= spool.next_offset:
                try:
                    spool.roll()
                except OSError:
                    continue
                return spool.drop_oldest()
        return any(spool.drop_oldest() for spool in sorted(self._spools.values(), key=lambda s: -s.size_bytes))
