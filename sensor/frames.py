"""What travels from the sources to the pipeline: frames, and the facts that some of them carry. Owns the queue.

A frame is bytes and the word that says who understands them: the stem of a probe (a kernel record), or one of FACTS.
Everything an event is made of comes as a frame, so a recording of the frames gives the same events again.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from ecs_mappings.event import Container, ContainerDetail, Counters, Error, Loss, Process


class Frame(NamedTuple):
    kind: str
    data: bytes


class ContainerFact(msgspec.Struct, frozen=True):
    """kind "container": what Docker says of an id now. Without `container` Docker knows nothing of it."""

    id: str
    container: Container | None = None
    removed: bool = False


class LifecycleFact(msgspec.Struct, frozen=True, kw_only=True):
    """kind "lifecycle": something happened to a container; becomes an event of its own."""

    time_ns: int
    """Docker's own wall clock."""
    action: str
    type: str
    id: str = ""
    detail: ContainerDetail | None = None
    message: str = ""
    process: Process | None = None
    outcome: str = ""
    truncated: list[str] = []


class ProcessFact(msgspec.Struct, frozen=True, kw_only=True):
    """kind "process": a container's process that was there before the probes."""

    pid: int
    start_ns: int
    ppid: int
    parent_start_ns: int
    container: str
    executable: str
    args: list[str]
    working_directory: str


class ClockFact(msgspec.Struct, frozen=True):
    """kind "clock": CLOCK_REALTIME minus CLOCK_BOOTTIME from now on."""

    offset_ns: int


class SensorFact(msgspec.Struct, frozen=True, kw_only=True):
    """kind "sensor": the sensor about itself."""

    action: str
    counters: Counters | UnsetType = UNSET
    loss: Loss | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    start: datetime | UnsetType = UNSET
    end: datetime | UnsetType = UNSET
    error: Error | UnsetType = UNSET


Fact = ContainerFact | LifecycleFact | ProcessFact | ClockFact | SensorFact

FACTS: dict[str, type[Fact]] = {
    "container": ContainerFact,
    "lifecycle": LifecycleFact,
    "process": ProcessFact,
    "clock": ClockFact,
    "sensor": SensorFact,
}
_KINDS = {fact: kind for kind, fact in FACTS.items()}


def frame_of(fact: Fact) -> Frame:
    return Frame(_KINDS[type(fact)], msgspec.msgpack.encode(fact))


def fact_of(frame: Frame) -> Fact:
    """Raises msgspec.DecodeError when the bytes are none."""
    return msgspec.msgpack.decode(frame.data, type=FACTS[frame.kind])


class FrameQueue:
    """From any number of source threads to the one pipeline thread, in order. Bounded by back-pressure, not by loss:
    `put` says when there is enough, and the source then leaves the rest where it is (the kernel's ring counts its own
    losses)."""

    def __init__(self, limit: int, limit_bytes: int = 64 * 1024 * 1024) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._changed = threading.Condition(threading.Lock())

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """Always takes the frame; False when the source should wait for room before the next."""
        with self._changed:
            self._frames.append(frame)
            self._bytes += len(frame.data)
            self._changed.notify()
            return self._has_room()

    def wait_for_room(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._has_room, timeout_s)

    def take(self, most: int, timeout_s: float) -> list[Frame]:
        """At once what there is, up to `most`; waits up to `timeout_s` when there is nothing."""
        with self._changed:
            if not self._frames:
                self._changed.wait(timeout_s)
            frames, was_full = self._frames, not self._has_room()
            taken = [frames.popleft() for _ in range(min(most, len(frames)))]
            self._bytes -= sum(len(frame.data) for frame in taken)
            if was_full:
                self._changed.notify_all()
            return taken

    def _has_room(self) -> bool:
        return len(self._frames) < self._limit and self._bytes < self._limit_bytes
