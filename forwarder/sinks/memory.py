"""The sink for tests: keeps what it is given, and fails on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from forwarder.sinks import TOPICS, Outcome


class MemorySink:
    """Takes everything. Safe to read from any thread.

    `refuse(topic, offset, lines)` runs first and may raise what a sink may raise; `judge(line)` gives the reason why a
    record is rejected, or None.
    """

    def __init__(
        self,
        topics: Sequence[str] = TOPICS,
        refuse: Callable[[str, int, Sequence[bytes]], None] | None = None,
        judge: Callable[[bytes], str | None] | None = None,
    ) -> None:
        self.topics = tuple(topics)
        self.refuse = refuse
        self.judge = judge
        self._taken: dict[str, list[tuple[int, bytes]]] = {topic: [] for topic in topics}
        self._changed = threading.Condition()

    def deliver(self, topic: str, offset: int, lines: Sequence[bytes]) -> list[Outcome | None]:
        if self.refuse is not None:
            self.refuse(topic, offset, lines)
        outcomes: list[Outcome | None] = []
        with self._changed:
            for i, line in enumerate(lines):
                reason = self.judge(line) if self.judge is not None else None
                if reason is None:
                    self._taken[topic].append((offset + i, line))
                outcomes.append(None if reason is None else Outcome(rejected=reason))
            self._changed.notify_all()
        return outcomes

    def close(self) -> None:
        """Nothing: what was taken stays readable."""

    def taken(self, topic: str) -> list[tuple[int, bytes]]:
        """(offset, line) in the order of delivery, repeats included."""
        with self._changed:
            return list(self._taken[topic])

    def wait(self, topic: str, count: int, timeout_s: float = 10.0) -> list[tuple[int, bytes]]:
        """What was taken, once it is at least `count` records; TimeoutError otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._taken[topic]) >= count, timeout_s):
                raise TimeoutError(f"{len(self._taken[topic])} of {count} records of {topic} after {timeout_s} s")
            return list(self._taken[topic])
