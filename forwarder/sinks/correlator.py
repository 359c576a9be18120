"""Events to the correlator, over its socket."""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.sinks import EVENTS, Outcome
from tocsin.link import OFFSET_HEADER, Client


class CorrelatorSink:
    topics = (EVENTS,)

    def __init__(self, client: Client) -> None:
        self._client = client

    def deliver(self, topic: str, offset: int, lines: Sequence[bytes]) -> list[Outcome | None]:
        self._client.post("/events", b"\n".join([*lines, b""]), {OFFSET_HEADER: str(offset)})
        return [None] * len(lines)

    def close(self) -> None:
        self._client.close()
