"""Spans of event time in which events were lost, so that an alert can say its evidence may have holes."""

from __future__ import annotations

MAX_SPANS = 256


class Losses:
    """Closed spans in microseconds, oldest first. When there are too many, the two oldest become one."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []

    def add(self, start_us: int, end_us: int) -> None:
        """Remembers a span; one that touches known spans is merged with them."""
        start_us, end_us = min(start_us, end_us), max(start_us, end_us)
        apart = []
        for low, high in self.spans:
            if high < start_us or low > end_us:
                apart.append((low, high))
            else:
                start_us, end_us = min(low, start_us), max(high, end_us)
        self.spans = sorted([*apart, (start_us, end_us)])
        if len(self.spans) > MAX_SPANS:
            self.spans[:2] = [(self.spans[0][0], self.spans[1][1])]

    def overlap(self, start_us: int, end_us: int) -> bool:
        return any(low <= end_us and start_us <= high for low, high in self.spans)
