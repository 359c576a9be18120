"""Every bound of the forwarder, with its default."""

from __future__ import annotations

from dataclasses import dataclass

from forwarder.sinks import ALERTS

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    spool_bytes: int = 2048 * MIB
    """Of both topics together; the alerts' share is an eighth. Beyond it the oldest segment is dropped and reported."""
    segment_bytes: int = 16 * MIB
    """What is dropped at once; at most a quarter of the topic's share."""
    retain_s: float = 1800.0
    """Records that every sink has taken are kept this long, for rewinds."""
    batch_records: int = 1000
    batch_bytes: int = 2 * MIB
    """A batch ends once it has so many; one frame more than that at most."""
    dead_letter_bytes: int = 64 * MIB
    """Per sink."""
    sync_every_s: float = 0.2
    """What a power cut may take with it. kill -9 takes nothing."""
    cursors_every_s: float = 1.0
    """What is delivered again after a kill -9."""
    max_wait_s: float = 2.0
    """Longest pause between two attempts at a sink, unless it asks for more."""
    max_retry_after_s: float = 60.0
    """Longest pause a sink may ask for."""

    def share(self, topic: str) -> int:
        """Bytes that one topic may keep: a flood of events must not push out alerts."""
        alerts = self.spool_bytes // 8
        return alerts if topic == ALERTS else self.spool_bytes - alerts

    def segment(self, topic: str) -> int:
        return min(self.segment_bytes, self.share(topic) // 4)
