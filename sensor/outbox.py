"""Events that wait for the forwarder. Owns delivery: batches, back-off, dropping the oldest when they are too many."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable

from sensor.assembler import Line
from sensor.losses import Losses
from tocsin.errors import Rejected, RetryLater

Deliver = Callable[[list[bytes]], None]
"""Takes encoded events, one line each without newline; returns when they are durably taken. Raises RetryLater (the
same lines come again) or Rejected (they are dropped, counted and reported)."""

BATCH_EVENTS = 500
BATCH_BYTES = 1024 * 1024
BYTES_PER_EVENT = 4096
"""The bound in bytes is the bound in events times this."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 2.0
GATHER_S = 0.004
BURST = 16
"""So many batches go out at once; only where they keep coming closer than GATHER_S do they gather for so long. A batch
costs every process on the way the same, whether it has one event or ten."""


class Outbox:
    """For one thread. In order, at least once; what it drops it counts in `losses`, never silently."""

    def __init__(self, deliver: Deliver, limit_events: int, losses: Losses) -> None:
        self._deliver = deliver
        self._limit = limit_events
        self._limit_bytes = limit_events * BYTES_PER_EVENT
        self._losses = losses
        self._lines: deque[Line] = deque()
        self._bytes = 0
        self._failures = 0
        self._retry_at = 0.0
        self._turn = 0.0
        self.delivered = 0
        self.acknowledged = 0
        """All numbers up to this one are delivered or counted as lost."""
        self.trouble = ""
        """Why the last delivery failed; empty while all is well."""

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: Line) -> None:
        self._lines.append(line)
        self._bytes += len(line.data)
        while len(self._lines) > self._limit or self._bytes > self._limit_bytes:
            self._lose([self._lines[0]], "the forwarder was away and the queue full: the oldest were dropped")

    def delay_s(self) -> float:
        """Until the next attempt makes sense; 0 when now."""
        turn = self._turn if len(self._lines) < BATCH_EVENTS else 0.0
        return max(0.0, max(self._retry_at, turn) - time.monotonic())

    def send(self) -> bool:
        """One batch, if there is one and its time has come. Whether something was delivered or dropped."""
        if not self._lines or self.delay_s() > 0:
            return False
        batch = self._batch()
        self._turn = max(self._turn, time.monotonic() - BURST * GATHER_S) + GATHER_S
        try:
            self._deliver([line.data for line in batch])
        except RetryLater as e:
            self._back_off(e)
            return False
        except Rejected as e:
            self._refused(batch, e)
        else:
            self._taken(batch)
        return True

    def _batch(self) -> list[Line]:
        batch: list[Line] = []
        size = 0
        for line in itertools.islice(self._lines, BATCH_EVENTS):
            size += len(line.data) + 1
            if batch and size > BATCH_BYTES:
                break
            batch.append(line)
        return batch

    def _taken(self, batch: list[Line]) -> None:
        self._remove(len(batch))
        self.delivered += len(batch)
        self._failures = 0
        self.trouble = ""

    def _back_off(self, error: RetryLater) -> None:
        own = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._retry_at = time.monotonic() + (own if error.after_s is None else min(error.after_s, LONGEST_DELAY_S))
        self.trouble = str(error)

    def _refused(self, batch: list[Line], error: Rejected) -> None:
        """One bad line must not take others with it: each goes alone, and only the refused are dropped."""
        if len(batch) == 1:
            self._lose(batch, f"the forwarder refused it: {error}"[:200])
            return
        for line in batch:
            try:
                self._deliver([line.data])
            except RetryLater as e:
                self._back_off(e)
                return
            except Rejected as e:
                self._lose([line], f"the forwarder refused it: {e}"[:200])
            else:
                self._taken([line])

    def _lose(self, lines: list[Line], reason: str) -> None:
        self._losses.add("queue", "", len(lines), lines[0].time, lines[-1].time, reason)
        self._remove(len(lines))

    def _remove(self, count: int) -> None:
        for _ in range(count):
            line = self._lines.popleft()
            self._bytes -= len(line.data)
            self.acknowledged = line.sequence
