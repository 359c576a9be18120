"""From the kernel's clock to the wall's. Owns the offset and noticing that it jumped."""

from __future__ import annotations

import time

JUMP_NS = 50_000
"""Smaller differences are the noise of reading two clocks."""


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_offset_ns() -> int:
    """CLOCK_REALTIME minus CLOCK_BOOTTIME: the best of three readings, each between two of the other clock."""
    best: tuple[int, int] | None = None
    for _ in range(3):
        before = boottime_ns()
        wall = time.time_ns()
        after = boottime_ns()
        reading = (after - before, wall - (before + after) // 2)
        best = reading if best is None else min(best, reading)
    assert best is not None
    return best[1]


class WallClock:
    """The offset, kept still until somebody sets the clock (or it is slewed by more than JUMP_NS)."""

    def __init__(self) -> None:
        self.offset_ns = wall_offset_ns()

    def moved(self) -> bool:
        """Looks again; whether `offset_ns` is another one now."""
        offset_ns = wall_offset_ns()
        if abs(offset_ns - self.offset_ns) < JUMP_NS:
            return False
        self.offset_ns = offset_ns
        return True
