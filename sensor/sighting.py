"""The seam between probes and the assembler: what a probe module must offer, gets, and gives."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from msgspec import UNSET, UnsetType

from ecs_mappings.event import (
    Endpoint,
    Error,
    Network,
    Process,
    ProcessDetail,
)
from sensor.processes import Processes
from sensor.record import Header

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Hook(NamedTuple):
    """Where a function of bpf/<stem>.c is attached; `at` is "category:name" for a tracepoint, else its bare name."""

    kind: Literal["tracepoint", "raw_tracepoint"]
    at: str
    function: str


class Scene:
    """What a record alone does not say: the wall clock and the processes seen so far."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.offset_ns = 0
        """CLOCK_REALTIME minus CLOCK_BOOTTIME."""

    def when(self, boottime_ns: int) -> datetime:
        """Wall time, UTC, whole microseconds. Raises OverflowError for a time no clock can show."""
        return _EPOCH + timedelta(microseconds=(boottime_ns + self.offset_ns) // 1000)


class Sighting(NamedTuple):
    """One record, understood. The assembler adds what all events share."""

    process: Process
    detail: ProcessDetail
    outcome: str | UnsetType = UNSET
    duration_ns: int | UnsetType = UNSET
    network: Network | UnsetType = UNSET
    source: Endpoint | UnsetType = UNSET
    destination: Endpoint | UnsetType = UNSET
    error: Error | UnsetType = UNSET
    truncated: tuple[str, ...] = ()


class Probe(Protocol):
    """A module sensor/probes/<stem>.py beside bpf/<stem>.c: its file name is its registration and event.action."""

    DATASET: str
    CATEGORY: list[str]
    TYPE: list[str]
    HOOKS: tuple[Hook, ...]
    OFFSETS: tuple[tuple[str, ...], ...]
    """(struct, field, other names of the field): what bpf/<stem>.c reads beyond bpf/common.h."""
    LAYOUT: struct.Struct
    """The fixed part after the header; the C side refuses to compile when its size differs."""

    @staticmethod
    def read(header: Header, body: bytes, scene: Scene) -> Sighting | None:
        """One record's sighting; None when it is no news (container set-up). Raises Malformed, or any ValueError,
        LookupError or struct.error that foreign bytes provoke; the caller counts them."""
        ...
