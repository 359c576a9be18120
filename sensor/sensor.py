"""The sensor as its program sees it: start, stop, status. Owns the wiring of sources and pipeline, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

Deliver = Callable[[list[bytes]], None]
"""Takes encoded events, one line each without newline; returns when they are durably taken. Raises RetryLater (the
same lines come again) or Rejected (they are dropped, counted and reported)."""

Scope = Literal["containers", "all"]


class Sensor:
    """Everything between the kernel and `deliver`. Threads are its own; every method is for one controlling thread."""

    def __init__(
        self,
        deliver: Deliver,
        state_dir: Path,
        *,
        scope: Scope = "containers",
        docker: str = "unix:///var/run/docker.sock",
        queue_events: int = 65_536,
        ring_mib: int = 16,
        heartbeat_s: float = 10.0,
        strict: bool = False,
        record: Path | None = None,
        excluded_pids: Iterable[int] = (),
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None: ...

    def start(self) -> None:
        """Attaches the probes and starts to deliver. Raises TocsinError when this host cannot run the sensor at all.

        A probe that cannot be attached is listed under `degraded`; with `strict` it is a TocsinError.
        """

    def exclude(self, pids: Iterable[int]) -> None:
        """Never report these processes nor their children: Tocsin's own. The sensor's own pid is always excluded."""

    def stop(self, flush_s: float = 5.0) -> None:
        """Detaches, reads the last losses, delivers what is queued for at most `flush_s`. What stays undelivered is
        reported by the next run as lost."""

    def status(self) -> dict[str, Any]:
        """Counters for people and machines; safe from any thread.

        {"run", "uptime_s", "scope", "probes": {name: {"attached", "captured", "lost", "malformed"}}, "degraded": [str],
        "captured", "delivered", "lost", "queued", "docker": {"connected", "containers", "detail"}, "delivering": bool}
        """
        return {}
