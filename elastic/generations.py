"""Finds repeats across the backing indices of a data stream.

Elasticsearch tells a repeated _id only within one backing index. After a rollover a document of the index before would
be created a second time; so for as long as a repeat is likely, ids are looked up in the older ones first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from elasticsearch import Elasticsearch, NotFoundError

YOUNG_S = 3600.0
"""After a rollover every id is looked up for this long: repeats by producers come within minutes."""

DOUBT_S = 60.0
"""After a start or a failed write every id is looked up for this long, however old the rollover is: only then may a
batch come again that was taken before."""

_FRESH_S = 1.0
"""How long the list of backing indices is believed."""


@dataclass(frozen=True)
class _Known:
    older: tuple[str, ...]
    newest_created_s: float
    read_at: float


class Generations:
    """What one writer knows about the backing indices of the streams it writes to."""

    def __init__(self, client: Elasticsearch, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._doubt_until = clock() + DOUBT_S

    def doubt(self) -> None:
        """A write has failed: what it did is unknown, and so is what happened meanwhile."""
        self._known.clear()
        self._doubt_until = self._clock() + DOUBT_S

    def repeats(self, stream: str, ids: Collection[str]) -> set[str]:
        """Those ids that an older backing index of the stream holds. One cheap call a second when there is none."""
        known = self._indices(stream)
        young = time.time() - known.newest_created_s < YOUNG_S
        if not known.older or not (young or self._clock() < self._doubt_until):
            return set()
        index = ",".join(known.older)
        # A rolled over index may still hold documents that no search sees yet.
        self._client.indices.refresh(index=index)
        found = self._client.search(
            index=index,
            query={"ids": {"values": list(ids)}},
            size=len(ids),
            source=False,
            allow_partial_search_results=False,
        )
        return {hit["_id"] for hit in found["hits"]["hits"]}

    def _indices(self, stream: str) -> _Known:
        known = self._known.get(stream)
        if known is None or self._clock() - known.read_at > _FRESH_S:
            known = self._known[stream] = self._read(stream)
        return known

    def _read(self, stream: str) -> _Known:
        try:
            settings = self._client.indices.get_settings(index=stream, name="index.creation_date", flat_settings=True)
        except NotFoundError:
            return _Known((), 0.0, self._clock())  # the first write makes it
        by_age = sorted((int(x["settings"]["index.creation_date"]), name) for name, x in settings.items())
        return _Known(tuple(name for _, name in by_age[:-1]), by_age[-1][0] / 1000, self._clock())
