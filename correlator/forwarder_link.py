"""The correlator's side of the link to the forwarder."""

from __future__ import annotations

from collections.abc import Mapping

from tocsin.link import Client


class ForwarderLink:
    """Speaks to forwarder.sock. See `correlator.Forwarder` for what the methods promise."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def post_alerts(self, lines: bytes) -> None:
        self._client.post("/alerts", lines)

    def rewind(self, *, offset: int | None = None, seconds: float | None = None) -> Mapping[str, int]:
        how_far = f"offset={offset}" if offset is not None else f"seconds={seconds or 0.0}"
        try:
            reply: Mapping[str, int] = self._client.post(f"/rewind?topic=events&sink=correlator&{how_far}").decoded()
        finally:
            self._client.close()  # asked rarely, and each time from another thread
        return reply

    def close(self) -> None:
        """Closes the connection that this thread's posts have kept."""
        self._client.close()
