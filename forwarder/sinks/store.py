"""Both topics into the store, which is handed in: the forwarder knows no database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from forwarder.sinks import ALERTS, EVENTS, Outcome


class Written(Protocol):
    """What the store says of one document."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str:
        """created, exists or rejected."""
        ...

    @property
    def reason(self) -> str | None: ...


class Writer(Protocol):
    """The part of a store that the forwarder uses."""

    def write(self, documents: Sequence[bytes]) -> Sequence[Written]:
        """Create-only: one answer per document, in order. RetryLater when the store is away."""
        ...


class StoreSink:
    topics = (EVENTS, ALERTS)

    def __init__(self, store: Writer) -> None:
        self._store = store

    def deliver(self, topic: str, offset: int, lines: Sequence[bytes]) -> list[Outcome | None]:
        return [
            Outcome(w.id, (w.reason or "rejected by the store") if w.status == "rejected" else None)
            for w in self._store.write(lines)
        ]
