"""Frames in, events out. A pure function of the frames and the moments they were taken: replay gives the same bytes."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import UNSET, UnsetType

from ecs_mappings.event import (
    MAX_DOCUMENT_BYTES,
    Ancestor,
    Container,
    Ecs,
    Event,
    EventMeta,
    Group,
    Host,
    Latency,
    ParentProcess,
    Tocsin,
    User,
    encode,
)
from sensor.containers import Containers
from sensor.frames import (
    FACTS,
    ClockFact,
    ContainerFact,
    Frame,
    LifecycleFact,
    ProcessFact,
    SensorFact,
    fact_of,
)
from sensor.processes import Processes
from sensor.program import Program, called
from sensor.record import FLAG_DEEP, LAYOUT, Header, Malformed, header
from sensor.shrink import shrunk
from sensor.sighting import Probe, Scene, Sighting

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ECS = Ecs()


class Identity(msgspec.Struct, frozen=True):
    """Of one run of the sensor on one boot of one host. Goes into recordings."""

    boot_id: str
    run: str
    """Unique per start."""
    host: Host


class Line(msgspec.Struct, frozen=True):
    """One event, ready to send."""

    data: bytes
    sequence: int
    time: datetime


class Assembler:
    """Owns what is known of containers and processes, and gives out event ids. For one thread."""

    def __init__(self, identity: Identity, probes: Mapping[str, Probe]) -> None:
        self.identity = identity
        self.containers = Containers()
        self.processes = Processes(identity.boot_id)
        self.sequence = 0
        self._scene = Scene(self.processes)
        self._probes = probes
        self._id_prefix = f"{identity.boot_id.replace('-', '')[:8]}-{identity.run}-"

    @property
    def offset_ns(self) -> int:
        return self._scene.offset_ns

    def take(self, frame: Frame, now_ns: int) -> Line | None:
        """The event of a frame, or None for a fact that only adds to what is known.

        `now_ns` is CLOCK_BOOTTIME. Raises Malformed for bytes that are no such frame; nothing has changed then.
        """
        try:
            event = self._event(frame, now_ns)
        except (ArithmeticError, LookupError, ValueError, struct.error, msgspec.MsgspecError) as e:
            raise Malformed(f"a frame of kind {frame.kind!r}: {e}") from e
        if event is None:
            return None
        data = encode(event)
        if len(data) > MAX_DOCUMENT_BYTES:
            data = encode(shrunk(event))
        self.sequence += 1
        return Line(data, self.sequence, event.timestamp)

    def _event(self, frame: Frame, now_ns: int) -> Event | None:
        probe = self._probes.get(frame.kind)
        if probe is not None:
            return self._seen(frame, probe, now_ns)
        if frame.kind not in FACTS:
            raise Malformed("nobody knows it")
        match fact_of(frame):
            case ContainerFact() as fact:
                self._learn(fact, now_ns)
            case ClockFact() as fact:
                self._scene.offset_ns = fact.offset_ns
            case ProcessFact() as fact:
                self._adopt(fact)
            case LifecycleFact() as fact:
                return self._lifecycle(fact, now_ns)
            case SensorFact() as fact:
                return self._self(fact, now_ns)
        return None

    def _seen(self, frame: Frame, probe: Probe, now_ns: int) -> Event | None:
        head = header(frame.data)
        container = self._container(head)
        sighting = probe.read(head, frame.data[LAYOUT.size :], self._scene)
        if sighting is None:
            return None
        return Event(
            timestamp=self._scene.when(head.time_ns),
            ecs=_ECS,
            event=EventMeta(
                id=self._next_id(),
                category=probe.CATEGORY,
                type=probe.TYPE,
                action=frame.kind,
                dataset=probe.DATASET,
                provider="kernel",
                outcome=sighting.outcome,
                sequence=self.sequence + 1,
                duration=sighting.duration_ns,
            ),
            host=self.identity.host,
            container=container,
            process=sighting.process,
            user=_user(head.uid),
            group=_group(head.gid),
            source=sighting.source,
            destination=sighting.destination,
            network=sighting.network,
            error=sighting.error,
            tocsin=_tocsin(head, sighting, now_ns),
        )

    def _container(self, head: Header) -> Container | UnsetType:
        if not head.container[0]:
            return UNSET
        return self.containers.get(head.container.decode("ascii"))

    def _next_id(self) -> str:
        return f"{self._id_prefix}{self.sequence + 1}"

    def _learn(self, fact: ContainerFact, now_ns: int) -> None:
        if fact.container is not None:
            self.containers.learn(fact.container)
        if fact.removed:
            self.containers.removed(fact.id, now_ns)

    def _adopt(self, fact: ProcessFact) -> None:
        """A process found in /proc never replaces what an exec has told."""
        if self.processes.find(fact.pid, fact.start_ns) is not None:
            return
        above = self.processes.find(fact.ppid, fact.parent_start_ns)
        program = Program(
            called(fact.executable, fact.args), fact.executable, fact.args, len(fact.args), " ".join(fact.args),
            fact.working_directory,
        )  # fmt: skip
        ancestors: list[Ancestor] = []
        if above is not None and above.container == fact.container.encode():
            ancestors = [above.as_ancestor, *above.ancestors]
        parent = above.as_parent if above is not None else ParentProcess(
            pid=fact.ppid, entity_id=self.processes.entity_id(fact.ppid, fact.parent_start_ns)
        )  # fmt: skip
        self.processes.executed(
            fact.pid,
            fact.start_ns,
            self._scene.when(fact.start_ns),
            fact.container.encode(),
            program,
            parent,
            ancestors,
        )

    def _lifecycle(self, fact: LifecycleFact, now_ns: int) -> Event:
        wall_now_ns = now_ns + self._scene.offset_ns
        return Event(
            timestamp=_EPOCH + timedelta(microseconds=fact.time_ns // 1000),
            ecs=_ECS,
            event=EventMeta(
                id=self._next_id(),
                category=["host"],
                type=[fact.type],
                action=fact.action,
                dataset="tocsin.container",
                provider="docker",
                outcome=fact.outcome or UNSET,
                sequence=self.sequence + 1,
            ),
            message=fact.message or UNSET,
            host=self.identity.host,
            container=self.containers.get(fact.id) if fact.id else UNSET,
            process=fact.process or UNSET,
            tocsin=Tocsin(
                latency=Latency(captured_ms=_ms(wall_now_ns - fact.time_ns)),
                container=fact.detail or UNSET,
                truncated=fact.truncated or UNSET,
            ),
        )

    def _self(self, fact: SensorFact, now_ns: int) -> Event:
        return Event(
            timestamp=self._scene.when(now_ns),
            ecs=_ECS,
            event=EventMeta(
                id=self._next_id(),
                category=["host"],
                type=["info"],
                action=fact.action,
                dataset="tocsin.sensor",
                provider="sensor",
                sequence=self.sequence + 1,
                reason=fact.reason,
                start=fact.start,
                end=fact.end,
            ),
            host=self.identity.host,
            error=fact.error,
            tocsin=Tocsin(loss=fact.loss, sensor=fact.counters),
        )


def _tocsin(head: Header, sighting: Sighting, now_ns: int) -> Tocsin:
    truncated = [*sighting.truncated, "container.id"] if head.flags & FLAG_DEEP else list(sighting.truncated)
    return Tocsin(
        latency=Latency(captured_ms=_ms(now_ns - head.time_ns)),
        process=sighting.detail,
        truncated=truncated or UNSET,
    )


def _ms(ns: int) -> float:
    return round(ns / 1_000_000, 3)


@functools.lru_cache(1024)
def _user(uid: int) -> User:
    """Only uid 0 has a name that needs no file; other names live in the container's files, which are the attacker's."""
    return User(id=str(uid), name="root") if uid == 0 else User(id=str(uid))


@functools.lru_cache(1024)
def _group(gid: int) -> Group:
    return Group(id=str(gid), name="root") if gid == 0 else Group(id=str(gid))
