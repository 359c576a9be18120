"""Where one sink stands in one topic. Owns the arithmetic of taken, on the way and lost; moves nothing itself."""

from __future__ import annotations

import threading
from typing import NamedTuple


class Place(NamedTuple):
    """Where to read on. Stale as soon as the position was moved from outside."""

    offset: int
    generation: int


class Position:
    """Records below `cursor` are taken by the sink, or lost; [cursor, ahead) are on their way to it.

    Every offset that `ahead` passes without a record comes out of `skip` exactly once: so losses are counted right by
    construction, dropped segments and damaged records alike. Safe to share between threads.
    """

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.generation = 0
        """Counts the times that what was on its way was called back."""
        self._ahead = cursor
        self._lock = threading.Lock()

    def place(self) -> Place:
        with self._lock:
            return Place(self._ahead, self.generation)

    def claim(self, place: Place, end: int) -> bool:
        """[place.offset, end) is about to be delivered. False, and nothing changed, when `place` is stale."""
        with self._lock:
            if place != (self._ahead, self.generation):
                return False
            self._ahead = end
            return True

    def taken(self, generation: int) -> None:
        """The sink took what was claimed. After a rewind in between, this changes nothing."""
        with self._lock:
            if generation == self.generation:
                self.cursor = self._ahead

    def skip(self, to: int, place: Place | None = None) -> range:
        """Nothing below `to` can be read any more; returns what this sink loses by it.

        With a `place` that is stale nothing is skipped: the reader has to look again.
        """
        with self._lock:
            if to <= self._ahead or (place is not None and place != (self._ahead, self.generation)):
                return range(0)
            lost = range(self._ahead, to)
            if self.cursor == self._ahead:  # else the batch on its way moves the cursor, over the hole as well
                self.cursor = to
            self._ahead = to
            return lost

    def again(self) -> None:
        """What is on its way is given up, to be read anew."""
        with self._lock:
            self._ahead = self.cursor
            self.generation += 1

    def back(self, offset: int) -> int:
        """Moves the cursor back to `offset`, never forward; returns where it is now."""
        with self._lock:
            if offset < self.cursor:
                self.cursor = self._ahead = offset
                self.generation += 1
            return self.cursor
