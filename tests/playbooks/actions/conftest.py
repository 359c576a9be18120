"""What the tests of actions stand on: a world with containers, real (dockerd) or in memory, and a call to act in it."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import docker
import pytest

from ecs_mappings.event import AlertDetail, Container, Ecs, Event, EventMeta, Rule, Tocsin
from playbooks.action import Call, Delivery
from playbooks.daemon import Attachment, CpuLimit, Daemon, DockerDaemon
from playbooks.daemon_fake import FakeDaemon

SOCKET = "unix:///var/run/docker.sock"
LABEL = {"tocsin.test": "actions"}
CHATTY = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; echo x > /left-behind; exec sleep 1000"


class World(Protocol):
    """Makes containers for one test and takes them away after it."""

    daemon: Daemon

    def network(self, subnet: str | None = None) -> str: ...

    def run(self, *, nano_cpus: int = 0, quota: int = 0, network_mode: str = "", restart: str = "") -> str:
        """A running container that has written `line 0` to `line 199` and a file; its id."""

    def attach(self, id: str, network: str, *, aliases: tuple[str, ...] = (), address: str = "") -> None: ...

    def remove(self, id: str) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.daemon = FakeDaemon()

    def network(self, subnet: str | None = None) -> str:
        id = uuid.uuid4().hex * 2
        self.daemon.networks[id] = f"net-{id[:8]}"
        return id

    def run(self, *, nano_cpus: int = 0, quota: int = 0, network_mode: str = "", restart: str = "") -> str:
        mode = {"network_mode": network_mode} if network_mode else {}
        networks: dict[str, Any] = {}
        if network_mode.startswith("container:"):
            networks = {"networks": {}}
        elif network_mode in ("host", "none"):
            self.daemon.networks[f"{network_mode:a<64}"] = network_mode
            networks = {"networks": {network_mode: Attachment(f"{network_mode:a<64}", network_mode, {})}}
        return self.daemon.add(
            cpu=CpuLimit(nano_cpus, quota),
            labels=LABEL,
            environment=("TOKEN=hunter2", "PATH=/bin"),
            logs=tuple(f"line {i}" for i in range(200)),
            changes=("/left-behind",),
            **mode,
            **networks,
        )

    def attach(self, id: str, network: str, *, aliases: tuple[str, ...] = (), address: str = "") -> None:
        settings: dict[str, Any] = {"Aliases": list(aliases)} if aliases else {}
        if address:
            settings["IPAMConfig"] = {"IPv4Address": address}
        self.daemon.connect(id, Attachment(network, "", settings))

    def remove(self, id: str) -> None:
        self.daemon.remove(id)


class DockerWorld:
    def __init__(self, client: docker.APIClient, image: str) -> None:
        self.daemon = DockerDaemon(SOCKET)
        self._client = client
        self._image = image
        self._containers: list[str] = []
        self._networks: list[str] = []

    def network(self, subnet: str | None = None) -> str:
        ipam = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)]) if subnet else None
        made = self._client.create_network(f"tocsin-test-{uuid.uuid4().hex[:12]}", labels=LABEL, ipam=ipam)
        self._networks.append(made["Id"])
        return str(made["Id"])

    def run(
        self,
        *,
        nano_cpus: int = 0,
        quota: int = 0,
        network_mode: str = "",
        restart: str = "",
        command: str = CHATTY,
        tty: bool = False,
    ) -> str:
        host: dict[str, Any] = {"nano_cpus": nano_cpus, "cpu_quota": quota, "network_mode": network_mode}
        host = {k: v for k, v in host.items() if v} | ({"restart_policy": {"Name": restart}} if restart else {})
        made = self._client.create_container(
            self._image,
            ["/bin/sh", "-c", command],
            environment=["TOKEN=hunter2"],
            labels=LABEL,
            tty=tty,
            host_config=self._client.create_host_config(**host),
        )
        self._containers.append(made["Id"])
        self._client.start(made["Id"])
        if command == CHATTY:
            wait(lambda: b"line 199" in self._client.logs(made["Id"], tail=1))
        return str(made["Id"])

    def attach(self, id: str, network: str, *, aliases: tuple[str, ...] = (), address: str = "") -> None:
        self._client.connect_container_to_network(id, network, aliases=list(aliases), ipv4_address=address or None)

    def remove(self, id: str) -> None:
        self._client.remove_container(id, force=True)
        self._containers.remove(id)

    def close(self) -> None:
        self.daemon.close()
        for id in list(self._containers):
            self.remove(id)
        for network in self._networks:
            self._client.remove_network(network)


def wait(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=SOCKET, version="auto", timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(docker_client: docker.APIClient) -> Iterator[str]:
    """A tree of static busybox and its applets, imported: no registry is needed."""
    packed = io.BytesIO()
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for applet in (a for a in applets if a != "busybox"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    name = f"tocsin-test-actions:{os.getpid()}"
    docker_client.import_image_from_data(packed.getvalue(), *name.split(":"))
    yield name
    docker_client.remove_image(name, force=True)


@pytest.fixture
def docker_world(docker_client: docker.APIClient, image: str) -> Iterator[DockerWorld]:
    made = DockerWorld(docker_client, image)
    yield made
    made.close()


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "fake":
        return FakeWorld()
    made: DockerWorld = request.getfixturevalue("docker_world")
    return made


@pytest.fixture
def free_subnet() -> str:
    """First three parts of a /24 that no interrupted run has left a network on."""
    return f"172.30.{random.randrange(256)}"


@pytest.fixture
def alert() -> Event:
    return make_alert()


def make_alert(**changes: Any) -> Event:
    now = datetime(2026, 11, 20, 12, 0, 0, 123456, UTC)
    detail = AlertDetail(
        group="a1", key=["c" * 64], severity="high", count=1, events=["e1"], first_seen=now, last_seen=now
    )
    values: dict[str, Any] = {
        "timestamp": now,
        "ecs": Ecs(),
        "event": EventMeta(
            id="a1", kind="alert", category=["intrusion_detection"], type=["info"], action="opened",
            dataset="tocsin.alert",
        ),
        "message": "A shell with a terminal was started in web",
        "container": Container(id="c" * 64, name="web"),
        "rule": Rule(id="r1", name="Interactive shell in a container"),
        "tocsin": Tocsin(alert=detail),
    }  # fmt: skip
    return Event(**values | changes)


class Outbox:
    """Takes what actions post."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.taken.append(delivery)


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def call(tmp_path: Path, alert: Event, outbox: Outbox) -> Callable[..., Call]:
    """call(daemon, container id, ...) -> a Call of step s1 in run r1."""

    def make(daemon: Daemon | None = None, container_id: str | None = None, **changes: Any) -> Call:
        values: dict[str, Any] = {
            "alert": alert,
            "container_id": container_id,
            "seen": None,
            "playbook": "contain",
            "run_id": "r1",
            "step_id": "s1",
            "attempt": 1,
            "delivery_id": "d1",
            "evidence_dir": tmp_path / "evidence" / "r1",
            "deadline": time.monotonic() + 30,
            "daemon": daemon or FakeDaemon(),
            "post": outbox,
        }
        return Call(**values | changes)

    return make
