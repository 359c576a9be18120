"""The Docker source against the real daemon, behind a wire that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import APIClient

from ecs_mappings.event import ContainerDetail
from sensor.frames import ContainerFact, Fact, FrameQueue, LifecycleFact, fact_of
from sensor.sources.docker import DockerSource
from tocsin.errors import TocsinError
from tocsin.lab import Container, Lab
from tocsin.lab.runs import LABEL

pytestmark = pytest.mark.docker

DAEMON = "/var/run/docker.sock"


class Wire:
    """A Unix socket that leads to dockerd until it is cut, and again when it is mended."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._whole = True
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            far.connect(DAEMON)
            self._ends += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(a, b), daemon=True).start()

    def _carry(self, a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)


class Told:
    """A source and all it tells."""

    def __init__(self, url: str) -> None:
        self._frames = FrameQueue(100_000)
        self.facts: list[Fact] = []
        self.source = DockerSource(url, self._frames)

    def wait_for(self, wanted: Callable[[Fact], bool], timeout_s: float = 10.0) -> Fact:
        deadline = time.monotonic() + timeout_s
        while True:
            self.facts += [fact_of(frame) for frame in self._frames.take(1000, 0.05)]
            for fact in self.facts:
                if wanted(fact):
                    return fact
            assert time.monotonic() < deadline, self.facts[-3:]


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    made = Wire(tmp_path / "docker.sock")
    yield made
    made.close()


@pytest.fixture
def told(tmp_path: Path, wire: Wire) -> Iterator[Told]:
    made = Told(f"unix://{tmp_path}/docker.sock")
    made.source.start(5.0)
    yield made
    made.source.stop()


@pytest.fixture(scope="module")
def still(lab: Lab) -> Container:
    return lab.container("still", labels={"team": "blue"})


def named(container: Container) -> Callable[[Fact], bool]:
    return lambda f: isinstance(f, ContainerFact) and f.id == container.id and f.container is not None


def happened(action: str, container_id: str) -> Callable[[Fact], bool]:
    return lambda f: isinstance(f, LifecycleFact) and f.action == action and f.id == container_id


def gone(container_id: str) -> Callable[[Fact], bool]:
    return lambda f: isinstance(f, ContainerFact) and f.id == container_id and f.removed


def test_the_first_list_has_everything(still: Container, told: Told) -> None:
    fact = told.wait_for(named(still))
    assert isinstance(fact, ContainerFact) and fact.container
    assert fact.container.name == still.name and fact.container.labels
    assert fact.container.labels["team"] == "blue"
    assert fact.container.image and fact.container.image.hash and fact.container.image.hash.all
    assert fact.container.security_context and fact.container.security_context.privileged is False
    assert told.source.connected and told.source.detail == "following events"


def test_a_lookup_is_answered_also_when_there_is_no_such_container(still: Container, told: Told) -> None:
    assert told.source.ask("0" * 64)
    told.wait_for(lambda f: isinstance(f, ContainerFact) and f.id == "0" * 64 and f.container is None)


def test_a_daemon_that_hangs_over_one_container_does_not_starve_the_others(
    still: Container, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, free, inspect = "1" * 64, threading.Event(), APIClient.inspect_container

    def slow(client: APIClient, container: str) -> object:
        if container == stuck:
            free.wait(10)
        return inspect(client, container)

    told.wait_for(named(still))
    monkeypatch.setattr(APIClient, "inspect_container", slow)
    assert all(told.source.ask(stuck) for _ in range(5000))
    assert told.source.ask("2" * 64)
    free.set()
    told.wait_for(lambda f: isinstance(f, ContainerFact) and f.id == "2" * 64, timeout_s=3)


def test_after_a_break_nothing_is_missing_and_nothing_told_twice(
    still: Container, lab: Lab, told: Told, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    still.run("true", "before")
    told.wait_for(happened("exec_ended", still.id))
    wire.cut()
    deadline = time.monotonic() + 5
    while told.source.connected:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not told.source.ask(still.id)
    short = lab.container("short-lived")
    short.remove()
    wire.mend()
    told.wait_for(gone(short.id))
    still.run("true", "after")
    told.wait_for(lambda f: isinstance(f, LifecycleFact) and bool(f.process) and "after" in str(f.process))
    mine = [f.action for f in told.facts if isinstance(f, LifecycleFact) and f.id in (still.id, short.id)]
    assert mine.count("exec_started") == 2
    for action in ("created", "started", "died", "removed"):
        assert mine.count(action) == 1, mine
    assert "events carry container ids alone until it is back" in caplog.text


def test_a_container_that_went_unseen_is_removed(lab: Lab, told: Told, wire: Wire) -> None:
    short = lab.container("unseen")
    told.wait_for(named(short))
    wire.cut()
    short.remove()
    told.source._last_ns = time.time_ns()  # as after a restart of dockerd, which forgets its events
    wire.mend()
    told.wait_for(gone(short.id))
    assert not any(happened("removed", short.id)(f) for f in told.facts)


def test_an_image_authors_labels_forge_nothing(lab: Lab, told: Told) -> None:
    """What dockerd itself makes of labels with the names of its own attributes, and of what no store takes."""
    labels = {"exitCode": "0", "execID": "ee" * 32, "signal": "2", "name": "victim", "image": "other"}
    forger, honest = lab.container("forger", labels=labels), lab.container("honest")
    for container in (forger, honest):
        with contextlib.suppress(TocsinError):
            container.run("sh", "-c", "exit 3")
        container.remove()
    details = {}
    for container in (forger, honest):
        told.wait_for(gone(container.id))
        for action in ("exec_started", "exec_ended", "signalled", "died"):
            fact = told.wait_for(happened(action, container.id))
            assert isinstance(fact, LifecycleFact) and fact.detail
            details[container.name, action] = fact.detail
    assert all(detail == ContainerDetail() for (name, _), detail in details.items() if name == forger.name)
    assert details[honest.name, "exec_ended"].exit_code == 3 and details[honest.name, "died"].exit_code == 137
    assert details[honest.name, "exec_ended"].exec_id == details[honest.name, "exec_started"].exec_id
    assert details[honest.name, "signalled"].signal == "SIGKILL"
    names = [f.container for f in told.facts if isinstance(f, ContainerFact) and f.id == forger.id and f.container]
    assert {n.name for n in names} == {forger.name}
    assert {n.image.name for n in names if n.image} == {lab.image.partition(":")[0]}


def test_labels_that_no_store_takes_are_taken(lab: Lab, told: Told) -> None:
    with contextlib.closing(APIClient(version="1.41")) as client:
        labels = {"a\0b": "c\0", LABEL: lab.run}
        made = client.create_container(lab.image, ["true"], labels=labels)["Id"]
        client.remove_container(made)
    told.wait_for(gone(made))
    found = [f.container.labels for f in told.facts if isinstance(f, ContainerFact) and f.id == made and f.container]
    assert found and all(labels == {"a\ufffdb": "c\ufffd", LABEL: lab.run} for labels in found)
