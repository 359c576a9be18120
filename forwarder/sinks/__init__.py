"""The one seam of the forwarder: a sink takes batches of records. The file stem is the sink's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

EVENTS = "events"
ALERTS = "alerts"
TOPICS = (EVENTS, ALERTS)


class Outcome(msgspec.Struct, frozen=True):
    """What a receiver says of one record."""

    id: str | None = None
    """The id the receiver keeps it under, where it says so."""
    rejected: str | None = None
    """Why the receiver will never take it; None when it was taken."""


class Sink(Protocol):
    """A receiver of whole topics."""

    @property
    def topics(self) -> Sequence[str]:
        """What it subscribes to. Each topic is delivered by a thread of its own."""
        ...

    def deliver(self, topic: str, offset: int, lines: Sequence[bytes]) -> Sequence[Outcome | None]:
        """Takes the records `offset`, `offset + 1`, ... durably; returns one outcome per line, in order.

        None means taken with nothing to tell. Batches of a topic come in order, one at a time, and may be repeated from
        any earlier record on (after a crash, a timeout, a rewind): taking a record twice must be the same as once. The
        offset jumps forward where records were lost. Blocking is fine, with a timeout of the sink's own.
        Raises RetryLater when it cannot take the batch now (the same lines come again), Rejected when it never will
        (the batch is then halved until the record at fault stands alone).
        """
        ...

    def close(self) -> None:
        """Lets go of what the calling thread holds: each delivering thread calls it once, at its end."""
        ...
