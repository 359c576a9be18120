"""Reads a store as its documents appear."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from ecs_mappings.event import Event
from store import MAX_LIMIT, Query, Store
from tocsin.errors import RetryLater


class Tail:
    """Every document whose @timestamp is at or after `since`, once. Keeps them all: for scenes, not for a fleet.

    A document that appears more than `late_s` after its own @timestamp is only found by a look at the whole.
    """

    def __init__(self, store: Store, since: datetime, datasets: Sequence[str] = (), late_s: float = 15.0) -> None:
        self._store = store
        self._late = timedelta(seconds=late_s)
        self._since = since
        self._datasets = tuple(datasets)
        self._ids: set[str] = set()
        self.events: list[Event] = []

    def poll(self, whole: bool = False) -> None:
        """Takes in what is new; with `whole`, however late it came."""
        since = self._since if whole else max(self._since, datetime.now(UTC) - self._late)
        try:
            self._store.refresh()
            found = self._all(since)
        except RetryLater:
            return
        new = [event for event in found if event.event.id not in self._ids]
        self._ids.update(event.event.id for event in new)
        self.events += new

    def until(self, done: Callable[[], bool], timeout_s: float, pause_s: float = 0.05) -> bool:
        """Polls until `done`; False after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.poll()
            if done():
                return True
            if time.monotonic() > deadline:
                self.poll(whole=True)
                return done()
            time.sleep(pause_s)

    def _all(self, since: datetime) -> list[Event]:
        events: list[Event] = []
        after: str | None = None
        while True:
            page = self._store.search(
                Query(datasets=self._datasets, since=since, order="asc", limit=MAX_LIMIT, after=after)
            )
            events += page.events
            if page.next is None:
                return events
            after = page.next
