"""The correlator process, but for its socket: takes batches of the log, hands alerts on, keeps snapshots.

A batch is acknowledged only after the forwarder has taken the alerts it raised. Alerts that cannot be handed on are
kept, and nothing new is taken until they are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from correlator.engine import Engine
from correlator.ruleset import RuleSet
from ecs_mappings.event import Event, encode
from tocsin.errors import Rejected, RetryLater
from tocsin.link import Handler, Reply, Request

log = logging.getLogger(__name__)

MAX_POST_BYTES = 4 * 1024 * 1024
RETRY_S = 0.5


class Forwarder(Protocol):
    """The two things the correlator asks of the forwarder; `forwarder_link` speaks to the real one."""

    def post_alerts(self, lines: bytes) -> None:
        """Takes NDJSON; when it returns, it is durably taken. Raises RetryLater or Rejected."""

    def rewind(self, *, offset: int | None = None, seconds: float | None = None) -> Mapping[str, int]:
        """Has events delivered again from `offset` on, or those received within the last `seconds`.

        Returns `offset` (what is delivered next), `oldest` and `next` (the log's first and end). No batch from before
        arrives after it has returned, so it waits for the batch under way: never call it while taking one.
        """


class Correlator:
    def __init__(
        self,
        ruleset: RuleSet,
        forwarder: Forwarder,
        snapshot_path: Path,
        *,
        group_span_s: float = 600.0,
        snapshot_every_s: float = 3.0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.engine = Engine(ruleset, group_span_s, clock_ns)
        self._forwarder = forwarder
        self._snapshot_path = snapshot_path
        self._snapshot_every_s = snapshot_every_s
        self._replay_s = ruleset.span_s + group_span_s
        self._pending: list[Event] = []
        self._aligned = False
        self._last_offset: int | None = None
        """Of the newest batch; None when what comes next may well go back."""
        self._kept_offset: int | None = None
        self._refused = 0
        self._snapshot_state = "none"
        self._keeper: asyncio.Task[None] | None = None

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {("POST", "/events"): self._take_request, ("GET", "/status"): self._status_request}

    async def start(self) -> None:
        """Restores the last snapshot and begins to ask the forwarder for what came after it."""
        self._restore()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Takes nothing more and writes a last snapshot."""
        self._aligned = False
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self._save()

    def take(self, offset: int, lines: list[bytes]) -> None:
        """Judges the records from `offset` on; returns when their alerts are durably taken.

        Raises RetryLater while alerts cannot be handed on or the log has not been lined up with the state yet.
        """
        if self._last_offset is not None and offset < self._last_offset:
            self._aligned = False  # the forwarder was restarted: perhaps its log began anew, and we would skip it all
        if not self._aligned:
            raise RetryLater("the correlator is still asking for the records it has missed", 0.05)
        self._last_offset = offset
        self._hand_on()
        self._pending += self.engine.feed(offset, lines)
        self._hand_on()

    def status(self) -> dict[str, Any]:
        latencies = sorted(self.engine.matched_ms)
        return {
            "ruleset": self.engine.ruleset.digest[:12],
            "rules_loaded": sum(rule.alerts for rule in self.engine.ruleset.rules),
            "ready": self._aligned,
            "pending_alerts": len(self._pending),
            "refused_alerts": self._refused,
            "snapshot": {"restored": self._snapshot_state, "offset": self._kept_offset},
            "matched_ms": {
                f"p{p}": latencies[min(len(latencies) - 1, len(latencies) * p // 100)] if latencies else None
                for p in (50, 99)
            },
            **self.engine.status(),
        }

    async def _take_request(self, request: Request) -> Reply:
        lines = request.body.split(b"\n")
        if lines and not lines[-1]:
            lines.pop()
        self.take(request.offset(), lines)
        return Reply.json({"taken": len(lines), "next_offset": self.engine.next_offset})

    async def _status_request(self, request: Request) -> Reply:
        return Reply.json(self.status())

    def _hand_on(self) -> None:
        """Posts the pending alerts in order. One that is refused for good is logged, counted and dropped."""
        while self._pending:
            taken, body = _body(self._pending)
            try:
                self._forwarder.post_alerts(body)
            except Rejected as e:
                if taken == 1:
                    self._refused += 1
                    log.error("an alert was refused (%s): %s", e, body.decode(errors="replace")[:4096])
                else:
                    for alert in self._pending[:taken]:
                        self._hand_on_alone(alert)
            del self._pending[:taken]

    def _hand_on_alone(self, alert: Event) -> None:
        """One refused alert must not take its neighbours along. After a failure half way, ids absorb the repeats."""
        body = encode(alert) + b"\n"
        try:
            self._forwarder.post_alerts(body)
        except Rejected as e:
            self._refused += 1
            log.error("an alert was refused (%s): %s", e, body.decode(errors="replace")[:4096])

    async def _align(self) -> None:
        """Has the forwarder deliver from the state's next record on. Raises RetryLater."""
        wanted = self.engine.next_offset
        # In a thread: the forwarder waits until this loop has turned away the batch that is under way.
        if wanted is None:
            reply = await asyncio.to_thread(self._forwarder.rewind, seconds=self._replay_s)
            self.engine.next_offset = reply["offset"]
        else:
            reply = await asyncio.to_thread(self._forwarder.rewind, offset=wanted)
            if reply["next"] < wanted:
                log.warning(
                    "the log ends at record %d, before the kept state's %d: it began anew", reply["next"], wanted
                )
                self.engine.restart_log(reply["offset"])
        self._last_offset = None
        self._aligned = True

    def _restore(self) -> None:
        try:
            data = self._snapshot_path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as e:
            log.warning("the snapshot %s cannot be read: %s", self._snapshot_path, e.strerror)
            return
        try:
            self._pending = self.engine.restore(data)
        except ValueError as e:
            self._snapshot_state = str(e)
            log.warning("starting from the log alone, %.0f s back: %s", self._replay_s, e)
            return
        self._kept_offset = self.engine.next_offset
        self._snapshot_state = "yes"
        if self._kept_offset is None:
            self._snapshot_state = "taken with other rules"
            log.info("the rules have changed: the log is judged again, %.0f s back", self._replay_s)

    async def _keep(self) -> None:
        """Lines up with the log, retries what is pending, and saves the state every few seconds."""
        saved_at = time.monotonic()
        while True:
            try:
                await self._line_up()
                if time.monotonic() - saved_at >= self._snapshot_every_s:
                    saved_at = time.monotonic()
                    self._save()
            except Exception:  # a defect, of ours or of the forwarder: even so detection must not end in silence
                log.exception("lining up with the log, or saving the state, failed; it is tried again")
            await asyncio.sleep(min(RETRY_S, self._snapshot_every_s))

    async def _line_up(self) -> None:
        try:
            if not self._aligned:
                await self._align()
            self._hand_on()
        except RetryLater as e:
            log.info("the forwarder is not there yet: %s", e)
        except Rejected as e:
            log.error("the forwarder refuses a rewind: %s", e)

    def _save(self) -> None:
        """Writes the snapshot when the state moved on. No fsync: a torn one is noticed and the log replayed instead."""
        if self.engine.next_offset is None or self.engine.next_offset == self._kept_offset:
            return
        data = self.engine.snapshot(self._pending)
        part = self._snapshot_path.with_suffix(".part")
        try:
            self._snapshot_path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            os.replace(part, self._snapshot_path)
        except OSError as e:
            log.error("the snapshot %s cannot be written: %s", self._snapshot_path, e.strerror)
        else:
            self._kept_offset = self.engine.next_offset


def _body(alerts: list[Event]) -> tuple[int, bytes]:
    """As many of the first alerts as fit into one request: how many, and their lines."""
    lines: list[bytes] = []
    size = 0
    for alert in alerts:
        line = encode(alert) + b"\n"
        size += len(line)
        if lines and size > MAX_POST_BYTES:
            break
        lines.append(line)
    return len(lines), b"".join(lines)
