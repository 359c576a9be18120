"""What was lost, until it is reported. Owns the sums; every number here ends in an events_lost event."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

from msgspec import UNSET

from ecs_mappings.event import Loss
from sensor.frames import SensorFact

Place = tuple[str, str, str]
"""(stage, probe or "", reason)."""


@dataclass(slots=True)
class _Sum:
    count: int
    start: datetime
    end: datetime


class Losses:
    """Adds up by place until taken; safe from any thread. Bounded by the number of places."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Place, _Sum] = {}
        self.total = 0
        """Of this run, reported or not."""
        self.by_probe: dict[str, int] = {}

    def add(self, stage: str, probe: str, count: int, start: datetime, end: datetime, reason: str) -> None:
        """`count` events were lost between `start` and `end`."""
        with self._lock:
            self.total += count
            if probe:
                self.by_probe[probe] = self.by_probe.get(probe, 0) + count
            known = self._open.get((stage, probe, reason))
            if known is None:
                self._open[stage, probe, reason] = _Sum(count, start, end)
            else:
                known.count += count
                known.start = min(known.start, start)
                known.end = max(known.end, end)

    def take(self) -> list[SensorFact]:
        """All that is not reported yet, one fact a place; they count as reported from now."""
        with self._lock:
            taken, self._open = self._open, {}
        return [
            SensorFact(
                action="events_lost",
                loss=Loss(stage=stage, probe=probe or UNSET, count=s.count),
                reason=reason,
                start=s.start,
                end=s.end,
            )
            for (stage, probe, reason), s in taken.items()
        ]
