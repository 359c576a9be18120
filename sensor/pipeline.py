"""The one thread that turns frames into delivered events. Owns the order of things and the sensor's reports on itself.

It sends as soon as there is anything, and what queues up meanwhile goes together; sensor.outbox says when it waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ecs_mappings.event import Counters
from sensor.assembler import Assembler, Identity
from sensor.clock import WallClock, boottime_ns
from sensor.frames import ClockFact, Frame, FrameQueue, SensorFact, frame_of
from sensor.losses import Losses
from sensor.outbox import Deliver, Outbox
from sensor.record import Malformed
from sensor.recording import Writer
from sensor.runstate import RunState
from sensor.sighting import Probe
from sensor.waiting import Waiting
from tocsin.errors import TocsinError

log = logging.getLogger(__name__)

TAKE_FRAMES = 256
QUEUE_FRAMES = 16_384
TICK_S = 0.25
IDLE_S = 0.25


@dataclass(frozen=True)
class Host:
    """What the pipeline asks of the rest of the sensor. All are called on the pipeline thread and must not block."""

    ask_container: Callable[[str], bool]
    """Starts a lookup whose answer comes as a frame; False when there will be none."""
    kernel_losses: Callable[[], Mapping[str, int]]
    """Records the kernel had no room for since the start, by probe."""
    failed: Callable[[BaseException], None]
    """The pipeline is dead and cannot go on."""


class Pipeline:
    """Frames are put into `queue` by the sources. `start` once, `stop` once, after the sources have stopped."""

    def __init__(
        self, identity: Identity, probes: Mapping[str, Probe], deliver: Deliver, host: Host, state_file: Path, *,
        queue_events: int = 65_536, heartbeat_s: float = 10.0, record: Path | None = None,
    ) -> None:  # fmt: skip
        self.queue = FrameQueue(QUEUE_FRAMES)
        self.losses = Losses()
        self.assembler = Assembler(identity, probes)
        self.outbox = Outbox(deliver, queue_events, self.losses)
        self.captured: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()
        self._probes = probes
        self._host = host
        self._heartbeat_s = heartbeat_s
        self._waiting = Waiting(self.assembler.containers.__contains__, probes, host.ask_container)
        self._clock = WallClock()
        self._state = RunState(state_file, identity.run, _now())
        try:
            self._recorder = Writer(record, identity) if record else None
        except TocsinError:
            self._state.close(clean=False)
            raise
        self._started = time.monotonic()
        self._next_tick = self._next_heartbeat = 0.0
        self._kernel_losses: Mapping[str, int] = {}
        self._last_look = _now()
        self._stopping = threading.Event()
        self._deadline = 0.0
        self._thread = threading.Thread(target=self._run, name="sensor-pipeline", daemon=True)

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self._started

    def start(self, first: Iterable[Frame] = ()) -> None:
        """`first` are frames that must come before all others: what was there before the probes."""
        self._take(frame_of(ClockFact(self._clock.offset_ns)))
        for frame in first:
            self._take(frame)
        self._report(SensorFact(action="started"))
        if self._state.previous is not None:
            self._report(self._state.previous)
        self._next_heartbeat = time.monotonic() + self._heartbeat_s
        self._thread.start()

    def stop(self, flush_s: float) -> None:
        """Takes what is queued, reports the last losses, delivers for at most `flush_s`. The rest is the next run's
        to report."""
        self._deadline = time.monotonic() + flush_s
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._step(self._wait_s())
            self._finish()
        except Exception as e:
            log.exception("The pipeline failed", extra={"event.action": "pipeline_failed"})
            self._host.failed(e)
        finally:
            if self._recorder:
                self._recorder.close()
            self._state.close(clean=not self.outbox and not self.queue)

    def _step(self, wait_s: float) -> None:
        for frame in self.queue.take(TAKE_FRAMES, wait_s):
            for ready in self._waiting.admit(frame, boottime_ns()):
                self._take(ready)
        if self._waiting:
            for late in self._waiting.overdue(boottime_ns()):
                self._take(late)
        if time.monotonic() >= self._next_tick:
            self._tick()
        if self.outbox.send():
            self._state.acknowledged(self.outbox.acknowledged)

    def _wait_s(self) -> float:
        if self.outbox:
            return min(IDLE_S, self.outbox.delay_s())
        return 0.01 if self._waiting else IDLE_S

    def _take(self, frame: Frame) -> None:
        now_ns = boottime_ns()
        if self._recorder:
            self._recorder.add(frame, now_ns)
        try:
            line = self.assembler.take(frame, now_ns)
        except Malformed as e:
            self._malformed(frame, e)
            return
        if line is not None:
            self._state.assigned(line.sequence)
            self.captured[frame.kind] += 1
            self.outbox.add(line)

    def _malformed(self, frame: Frame, error: Malformed) -> None:
        if not self.malformed[frame.kind]:
            log.warning("A record was not understood: %s", error, extra={"event.action": "record_malformed"})
        self.malformed[frame.kind] += 1
        now = _now()
        self.losses.add("source", frame.kind, 1, now, now, "records that do not fit their layout")

    def _tick(self) -> None:
        now = time.monotonic()
        self._next_tick = now + TICK_S
        self._state.alive(_now())
        self.assembler.containers.forget(boottime_ns())
        if self._clock.moved():
            self._take(frame_of(ClockFact(self._clock.offset_ns)))
        self._look_for_losses()
        if not self.outbox.trouble:
            self._report_losses()
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._heartbeat_s
            self._report(SensorFact(action="heartbeat", counters=self._counters()))
        if self._recorder:
            self._recorder.flush()

    def _look_for_losses(self) -> None:
        now, found = _now(), self._host.kernel_losses()
        for probe, total in found.items():
            new = total - self._kernel_losses.get(probe, 0)
            if new > 0:
                self.losses.add("kernel", probe, new, self._last_look, now, "the kernel's ring buffer was full")
        self._kernel_losses = found
        self._last_look = now

    def _report_losses(self) -> None:
        """Only while deliveries succeed: a report that waits in a full queue would be dropped itself."""
        for fact in self.losses.take():
            self._report(fact)

    def _report(self, fact: SensorFact) -> None:
        self._take(frame_of(fact))

    def _counters(self) -> Counters:
        return Counters(
            run=self.assembler.identity.run,
            captured=sum(self.captured[probe] for probe in self._probes),
            delivered=self.outbox.delivered,
            lost=self.losses.total,
            queued=len(self.outbox),
            uptime_s=round(self.uptime_s, 3),
            cpu_s=round(time.process_time(), 3),
            rss_bytes=_rss_bytes(),
        )

    def _finish(self) -> None:
        while self.queue or self._waiting:
            self._step(0.01)
        self._look_for_losses()
        self._report_losses()
        while self.outbox and (left := self._deadline - time.monotonic()) > 0:
            if not self.outbox.send():
                time.sleep(min(left, self.outbox.delay_s()))
            self._state.acknowledged(self.outbox.acknowledged)


def _now() -> datetime:
    return datetime.now(UTC)


def _rss_bytes() -> int:
    with contextlib.suppress(OSError), open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
