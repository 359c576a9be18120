"""A Docker daemon in memory that keeps the promises of `playbooks.daemon.Daemon`: for tests and for trying playbooks.

One contract test runs this and a real dockerd. It also fails on demand, which a real one does not.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from playbooks.daemon import Attachment, ContainerState, CpuLimit, DaemonTimeout, Gone, Reading, Refused
from tocsin.errors import Rejected

MACHINE_CPUS = 2


@dataclass
class FakeContainer:
    state: ContainerState
    environment: list[str]
    logs: list[str]
    changes: list[str]
    busy: bool
    """Uses all the CPU it can get: with a limit it cannot be paused."""


@dataclass
class FakeDaemon:
    """`calls` holds (method, container id) in order. `networks` maps the ids of the networks there are to names."""

    containers: dict[str, FakeContainer] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=lambda: {"b" * 64: "bridge"})
    calls: list[tuple[str, str]] = field(default_factory=list)
    _faults: defaultdict[str, deque[Exception]] = field(default_factory=lambda: defaultdict(deque))
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(
        self,
        *,
        environment: tuple[str, ...] = (),
        logs: tuple[str, ...] = (),
        changes: tuple[str, ...] = (),
        busy: bool = False,
        **state: Any,
    ) -> str:
        """A container, running on the bridge unless `state` (fields of ContainerState) says otherwise; its id."""
        number = next(self._numbers)
        values: dict[str, Any] = {
            "id": f"{number:064x}",
            "name": f"fake-{number}",
            "image": "fake:latest",
            "labels": {},
            "running": True,
            "paused": False,
            "restarting": False,
            "started_at": datetime.now(UTC),
            "finished_at": None,
            "tty": False,
            "auto_remove": False,
            "network_mode": "default",
            "networks": {"bridge": Attachment("b" * 64, "bridge", {})},
            "cpu": CpuLimit(),
        } | state
        made = FakeContainer(ContainerState(**values), list(environment), list(logs), list(changes), busy)
        self.containers[made.state.id] = made
        return made.state.id

    def remove(self, id: str) -> None:
        del self.containers[id]

    def fail(self, method: str, *errors: Exception) -> None:
        """The next calls of `method` raise these, one each, and have no effect."""
        self._faults[method].extend(errors)

    def inspect(self, id: str) -> ContainerState:
        return self._enter("inspect", id).state

    def inspect_document(self, id: str) -> dict[str, Any]:
        container = self._enter("inspect_document", id)
        s = container.state
        return {
            "Id": s.id,
            "Name": f"/{s.name}",
            "Config": {"Image": s.image, "Labels": s.labels, "Tty": s.tty, "Env": list(container.environment)},
            "State": {"Running": s.running, "Paused": s.paused, "StartedAt": s.started_at and s.started_at.isoformat()},
            "HostConfig": {"NetworkMode": s.network_mode, "NanoCpus": s.cpu.nano_cpus, "CpuQuota": s.cpu.quota},
            "NetworkSettings": {"Networks": {a.name: a.settings | {"NetworkID": a.id} for a in s.networks.values()}},
        }

    def pause(self, id: str) -> None:
        container = self._enter("pause", id)
        if not container.state.running or container.state.paused:
            raise Refused("Docker refused: the container is not running, or paused already")
        if container.busy and self._throttles(container.state.cpu):
            raise Refused("Docker refused: unable to freeze")
        self._set(id, paused=True)

    def unpause(self, id: str) -> None:
        if not self._enter("unpause", id).state.paused:
            raise Refused("Docker refused: the container is not paused")
        self._set(id, paused=False)

    def stop(self, id: str, grace_s: int) -> None:
        if self._enter("stop", id).state.running:
            self._set(id, running=False, paused=False, finished_at=datetime.now(UTC))

    def kill(self, id: str) -> None:
        if not self._enter("kill", id).state.running:
            raise Refused("Docker refused: the container is not running")
        self._set(id, running=False, paused=False, finished_at=datetime.now(UTC))

    def start(self, id: str) -> None:
        state = self._enter("start", id).state
        if state.paused:
            raise Refused("Docker refused: cannot start a paused container, try unpause instead")
        if not state.running:
            self._set(id, running=True, started_at=datetime.now(UTC))

    def unthrottled(self, limit: CpuLimit) -> CpuLimit:
        return CpuLimit(nano_cpus=MACHINE_CPUS * 1_000_000_000) if limit.nano_cpus else CpuLimit(quota=-1)

    def set_cpu_limit(self, id: str, limit: CpuLimit) -> None:
        self._enter("set_cpu_limit", id)
        self._set(id, cpu=limit)

    def disconnect(self, id: str, network: str) -> None:
        state = self._enter("disconnect", id).state
        if self._network(network) == "host":
            raise Refused("Docker refused: container cannot be disconnected from host network")
        if network not in {a.id for a in state.networks.values()}:
            raise Refused("Docker refused: the container is not connected to the network")
        self._set(id, networks={name: a for name, a in state.networks.items() if a.id != network})

    def connect(self, id: str, attachment: Attachment) -> None:
        state = self._enter("connect", id).state
        name = self._network(attachment.id)
        if name in state.networks:
            raise Refused("Docker refused: the container is connected already")
        self._set(id, networks=state.networks | {name: replace(attachment, name=name)})

    def top(self, id: str, max_bytes: int, deadline: float) -> Reading:
        if not self._enter("top", id).state.running:
            raise Refused("Docker refused: the container is not running")
        return _reading(json.dumps({"Titles": ["PID", "CMD"], "Processes": [["1", "sh"]]}), max_bytes, deadline)

    def changes(self, id: str, max_bytes: int, deadline: float) -> Reading:
        paths = self._enter("changes", id).changes
        return _reading(json.dumps([{"Path": path, "Kind": 1} for path in paths]), max_bytes, deadline)

    def logs(self, id: str, lines: int, max_bytes: int, deadline: float) -> Reading:
        kept = "".join(f"{datetime.now(UTC).isoformat()} {line}\n" for line in self._enter("logs", id).logs[-lines:])
        whole = _reading(kept, len(kept), deadline).content
        return Reading(whole[-max_bytes:], cut=len(whole) > max_bytes)

    def events(self, id: str, max_bytes: int, deadline: float) -> Reading:
        self._enter("events", id)
        lines = (json.dumps({"Action": method, "id": of}) + "\n" for method, of in self.calls if of == id)
        return _reading("".join(lines), max_bytes, deadline)

    def _enter(self, method: str, id: str) -> FakeContainer:
        if len(id) != 64 or not set(id) <= set("0123456789abcdef"):
            raise Rejected(f"{id[:80]!r} is not a full id of 64 hexadecimal digits")
        self.calls.append((method, id))
        if self._faults[method]:
            raise self._faults[method].popleft()
        if id not in self.containers:
            raise Gone("the container is gone")
        return self.containers[id]

    def _network(self, id: str) -> str:
        if id not in self.networks:
            raise Refused(f"Docker refused: network {id} not found")
        return self.networks[id]

    def _set(self, id: str, **changes: Any) -> None:
        container = self.containers[id]
        container.state = replace(container.state, **changes)

    @staticmethod
    def _throttles(limit: CpuLimit) -> bool:
        return limit.throttles and limit.nano_cpus < MACHINE_CPUS * 1_000_000_000


def _reading(text: str, max_bytes: int, deadline: float) -> Reading:
    if time.monotonic() > deadline:
        raise DaemonTimeout("Docker's answer took too long")
    content = text.encode()
    return Reading(content[:max_bytes], cut=len(content) > max_bytes)
