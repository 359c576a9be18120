"""Counting within a span of event time, with bounded memory: the state behind Sigma's event_count and value_count.

Times are microseconds since the epoch. Events may arrive out of order by up to TOLERANCE_US without being missed; only
an older sighting of a value that was meanwhile seen later is passed over. A repeated event changes nothing. What does
not fit is dropped oldest first, and counted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field

from correlator.ruleset import Window

TOLERANCE_US = 5_000_000
MAX_STEP_BACK_US = 3_600_000_000
"""Event time further back than this means that the clock was set, not that an event is late."""
MAX_KEYS = 10_000
MAX_ENTRIES = 200_000
"""Of all keys of one rule together."""
SPARE_ENTRIES = 256
"""Kept per key beyond the threshold, so that late events still find their neighbours."""

Key = tuple[str, ...]
Entry = tuple[int, str, str]
"""(time, what is counted once: the event's id or the value, the event's id)"""


@dataclass
class Evidence:
    """The events of a window that fulfils the condition, oldest first but the completing one last."""

    start_us: int
    end_us: int
    events: list[str]


@dataclass
class Counter:
    """One group's entries, sorted by time; a value is kept once, at its newest time."""

    entries: list[Entry] = field(default_factory=list)
    times: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: list[Entry]) -> Counter:
        return cls(entries, {entry[1]: entry for entry in entries})

    def put(self, entry: Entry) -> bool:
        """False when the entry is known, or older than what is known of its value."""
        known = self.times.get(entry[1])
        if known is not None:
            if entry[0] <= known[0]:
                return False
            del self.entries[bisect_left(self.entries, known)]
        insort(self.entries, entry)
        self.times[entry[1]] = entry
        return True

    def drop_before(self, time_us: int, keep: int) -> int:
        """Drops what is older, and the oldest beyond `keep`; returns how many of the latter."""
        old = bisect_left(self.entries, (time_us,))
        over = max(0, len(self.entries) - old - keep)
        for entry in self.entries[: old + over]:
            del self.times[entry[1]]
        del self.entries[: old + over]
        return over


class Windows:
    """All groups of one correlation."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._span_us = window.span_s * 1_000_000
        self._keep = window.count + SPARE_ENTRIES
        self._counters: OrderedDict[Key, Counter] = OrderedDict()
        self._entries = 0
        self.evicted = 0
        """Groups given up because there were too many."""
        self.dropped = 0
        """Entries given up because one group had too many; the threshold was reached by then."""
        self.late = 0
        """Events that came too late to be counted."""

    def add(self, key: Key, time_us: int, event_id: str, value: str | None) -> Evidence | None:
        """Counts one event (or its `value`); the evidence when a window that holds it now fulfils the condition."""
        counter = self._counters.setdefault(key, Counter())
        self._counters.move_to_end(key)
        before = len(counter.entries)
        if before and time_us < counter.entries[-1][0] - MAX_STEP_BACK_US:
            counter = self._counters[key] = Counter()  # else nothing would count until the old time is reached again
        newest = max(time_us, counter.entries[-1][0] if counter.entries else time_us)
        horizon = newest - self._span_us - TOLERANCE_US
        if time_us < horizon:
            self.late += 1
            return None
        fresh = counter.put((time_us, event_id if value is None else value, event_id))
        self.dropped += counter.drop_before(horizon, self._keep)
        self._entries += len(counter.entries) - before
        self._evict(newest)
        return self._evidence(counter.entries, time_us, newest, event_id) if fresh else None

    def _evidence(self, entries: list[Entry], time_us: int, newest: int, event_id: str) -> Evidence | None:
        """Looks at the window that ends with the newest entry, then for a late event at every one that holds it."""
        end = len(entries)
        if end < self._window.count:
            return None
        first_end = end if time_us >= newest else bisect_right(entries, (time_us, "\U0010ffff"))
        while end >= first_end:
            start = bisect_left(entries, (entries[end - 1][0] - self._span_us,))
            if entries[start][0] <= time_us and self._fulfilled(end - start):
                ids = [entry[2] for entry in entries[start:end] if entry[2] != event_id]
                return Evidence(entries[start][0], max(time_us, entries[end - 1][0]), [*ids, event_id])
            end -= 1
        return None

    def _fulfilled(self, count: int) -> bool:
        wanted = self._window.count
        match self._window.op:
            case "gte":
                return count >= wanted
            case "gt":
                return count > wanted
            case "eq":
                return count == wanted

    def _evict(self, newest: int) -> None:
        """Forgets groups that are over, and the longest untouched ones when there are too many."""
        while self._counters:
            key, counter = next(iter(self._counters.items()))
            over = counter.entries and counter.entries[-1][0] < newest - self._span_us - TOLERANCE_US
            crowded = len(self._counters) > MAX_KEYS or (self._entries > MAX_ENTRIES and len(self._counters) > 1)
            if not over and not crowded:
                return
            self.evicted += not over
            self._entries -= len(counter.entries)
            del self._counters[key]

    def __len__(self) -> int:
        return len(self._counters)

    def state(self) -> list[tuple[Key, list[Entry]]]:
        """All that `restored` needs, least recently touched group first."""
        return [(key, counter.entries) for key, counter in self._counters.items()]

    def restore(self, state: list[tuple[Key, list[Entry]]]) -> None:
        self._counters = OrderedDict((tuple(key), Counter.of(entries)) for key, entries in state)
        self._entries = sum(len(counter.entries) for counter in self._counters.values())
