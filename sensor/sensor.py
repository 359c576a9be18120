"""The sensor as its program sees it: start, stop, status. Owns the wiring of sources and pipeline, nothing else."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from sensor import host, probes, procfs
from sensor.frames import frame_of
from sensor.outbox import Deliver
from sensor.pipeline import Host, Pipeline
from sensor.sources.bcc import BccSource
from sensor.sources.docker import DockerSource

log = logging.getLogger(__name__)

Scope = Literal["containers", "all"]

DOCKER_WAIT_S = 2.0
"""How long the start waits for Docker's first list; the probes are attached in any case."""


class Sensor:
    """Everything between the kernel and `deliver`. Threads are its own; every method but `status` is for one
    controlling thread.

    `deliver` takes encoded events, one line each without newline, and returns when they are durably taken. It raises
    RetryLater (the same lines come again, the queue grows to `queue_events`, then the oldest are dropped, counted and
    reported) or Rejected (each line is tried alone; the refused are dropped, counted and reported). Lines come in the
    order of their event.sequence, at least once. `on_failure` is told when a thread died of a defect.
    """

    def __init__(
        self, deliver: Deliver, state_dir: Path, *, scope: Scope = "containers",
        docker: str = "unix:///var/run/docker.sock", queue_events: int = 65_536, ring_mib: float = 16,
        heartbeat_s: float = 10.0, strict: bool = False, record: Path | None = None,
        excluded_pids: Iterable[int] = (), on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:  # fmt: skip
        """Opens the state file (and the recording): TocsinError when another sensor runs on `state_dir`."""
        self._scope = scope
        self._strict = strict
        self._excluded = {os.getpid(), *excluded_pids}
        self._on_failure = on_failure or _nobody_told
        known = probes.load_all()
        self._identity = host.identity()
        self._pipeline = Pipeline(
            self._identity, known, deliver, Host(self._ask, self._kernel_losses, self._on_failure),
            state_dir / "run.state", queue_events=queue_events, heartbeat_s=heartbeat_s, record=record,
        )  # fmt: skip
        self._bcc = BccSource(
            known, self._pipeline.queue, scope_all=scope == "all", ring_bytes=int(ring_mib * 1024 * 1024),
            failed=self._on_failure,
        )  # fmt: skip
        self._docker = DockerSource(docker, self._pipeline.queue)
        self._docker_url = docker
        self._started = False

    def start(self) -> None:
        """Attaches the probes and starts to deliver. Raises TocsinError when this host cannot run the sensor at all.

        A probe that cannot be attached is listed under `degraded`; with `strict` it is a TocsinError.
        """
        self._bcc.start(self._excluded, self._strict)
        self._docker.start(DOCKER_WAIT_S)
        # /proc is read after the probes are on, so that no process falls between the two.
        self._pipeline.start(frame_of(fact) for fact in procfs.container_processes())
        self._started = True
        log.info(
            "The sensor watches %s with %s", self._scope, ", ".join(self._bcc.attached),
            extra={"event.action": "sensor_started"},
        )  # fmt: skip

    def exclude(self, pids: Iterable[int]) -> None:
        """From now on do not report exactly these processes and their children: Tocsin's own, as they come and go. The
        sensor's own pid is always among them; a pid that ended and was given to another process is not."""
        self._excluded = {os.getpid(), *pids}
        if self._started:
            self._bcc.exclude(self._excluded)

    def stop(self, flush_s: float = 5.0) -> None:
        """Detaches, reads the last losses, delivers what is queued for at most `flush_s`. What stays undelivered is
        reported by the next run as lost."""
        if not self._started:
            return
        self._bcc.stop()
        self._docker.stop()
        self._pipeline.stop(flush_s)
        self._started = False
        log.info("The sensor stopped", extra={"event.action": "sensor_stopped"})

    def status(self) -> dict[str, Any]:
        """Counters for people and machines; safe from any thread.

        {"run", "uptime_s", "scope", "probes": {name: {"attached", "captured", "lost", "malformed"}}, "degraded": [str],
        "captured", "delivered", "lost", "queued", "delivering", "trouble",
        "docker": {"connected", "containers", "detail"}}
        """
        pipeline = self._pipeline
        lost = pipeline.losses.by_probe
        names = probes.names()
        return {
            "run": self._identity.run,
            "uptime_s": round(pipeline.uptime_s, 3),
            "scope": self._scope,
            "probes": {
                name: {
                    "attached": name in self._bcc.attached,
                    "captured": pipeline.captured[name],
                    "lost": lost.get(name, 0),
                    "malformed": pipeline.malformed[name],
                }
                for name in names
            },
            "degraded": list(self._bcc.degraded),
            "captured": sum(pipeline.captured[name] for name in names),
            "delivered": pipeline.outbox.delivered,
            "lost": pipeline.losses.total,
            "queued": len(pipeline.outbox) + len(pipeline.queue),
            "delivering": not pipeline.outbox.trouble,
            "trouble": pipeline.outbox.trouble,
            "docker": {
                "connected": self._docker.connected,
                "containers": len(pipeline.assembler.containers),
                "detail": self._docker.detail,
            },
        }

    def _ask(self, container_id: str) -> bool:
        return self._docker.ask(container_id)

    def _kernel_losses(self) -> dict[str, int]:
        return dict(self._bcc.losses())


def _nobody_told(error: BaseException) -> None:
    """The default: the failure is in the log."""
