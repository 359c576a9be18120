"""Both topics into the store, which is handed in: the forwarder knows no database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from forwarder.sinks import ALERTS, EVENTS, Outcome


class Written(Protocol):
    """What the store says of one document."""

    @property
    def outcome(self) -> str:
        """created, exists or rejected."""
        ...

    @property
    def reason(self) -> str: ...


class Writer(Protocol):
    """The part of a store that the forwarder uses."""

    def write(self, documents: Sequence[bytes]) -> Sequence[Written]:
        """Create-only: one answer per document, in order. RetryLater when the store is away."""
        ...


class _Meta(msgspec.Struct):
    id: str


class _Document(msgspec.Struct):
    event: _Meta


_decode = msgspec.json.Decoder(_Document).decode


class StoreSink:
    """Tells the ids of the alerts it took, so that their way can be timed."""

    topics = (EVENTS, ALERTS)

    def __init__(self, store: Writer) -> None:
        self._store = store

    def deliver(self, topic: str, offset: int, lines: Sequence[bytes]) -> list[Outcome | None]:
        written = self._store.write(lines)
        return [_outcome(topic, line, w) for line, w in zip(lines, written, strict=True)]

    def close(self) -> None:
        """Nothing: the store belongs to whoever handed it in."""


def _outcome(topic: str, line: bytes, written: Written) -> Outcome | None:
    if written.outcome == "rejected":
        return Outcome(rejected=written.reason or "rejected by the store")
    # What the store took is a legal event. Of the many events nobody asks when they were stored.
    return Outcome(_decode(line).event.id) if topic == ALERTS else None
