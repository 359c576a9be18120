"""Docker's messages as facts. The messages are what dockerd 20.10 sent."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from docker.errors import NotFound
from hypothesis import given
from hypothesis import strategies as st

from ecs_mappings.event import Container, ContainerDetail, Image
from sensor.assembler import Assembler, Identity
from sensor.frames import ContainerFact, FrameQueue, LifecycleFact, fact_of, frame_of
from sensor.record import Malformed
from sensor.sources import docker, lifecycle
from sensor.sources.docker import DockerSource

A = "ab" * 32


def message(kind: str, action: str, **attributes: str) -> dict[str, Any]:
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": A, "Attributes": {"image": "nginx:1", "name": "web", **attributes}},
        "scope": "local",
        "time": 1_700_000_000,
        "timeNano": 1_700_000_000_123_456_789,
    }


def test_docker_exec_becomes_an_event_with_its_command(assembler: Assembler) -> None:
    fact = lifecycle.fact_of(message("container", "exec_start: sh -c id", execID="ee" * 32))
    assert fact is not None
    line = assembler.take(frame_of(fact), 1_000_000)
    assert line is not None
    event = json.loads(line.data)
    assert event["@timestamp"] == "2023-11-14T22:13:20.123456Z"
    assert event["event"]["dataset"] == "tocsin.container"
    assert (event["event"]["action"], event["event"]["type"]) == ("exec_started", ["start"])
    assert event["container"] == {"id": A}
    assert event["process"] == {"command_line": "sh -c id"}
    assert event["tocsin"]["container"] == {"exec_id": "ee" * 32}


@pytest.mark.parametrize(
    ("given_message", "action", "detail"),
    [
        (message("container", "die", exitCode="137"), "died", {"exit_code": 137}),
        (message("container", "kill", signal="9"), "signalled", {"signal": "SIGKILL"}),
        (
            message("container", "exec_die", execID=A, exitCode="1"),
            "exec_ended",
            {"exec_id": A, "exit_code": 1},
        ),
        (message("container", "kill", signal="40"), "signalled", {"signal": "40"}),
        (message("network", "connect", container=A, type="bridge"), "network_connected", {"network": "web"}),
        (message("container", "pause"), "paused", {}),
        (message("image", "pull"), "image_pulled", {}),
    ],
)
def test_what_becomes_an_event(
    assembler: Assembler, given_message: dict[str, Any], action: str, detail: dict[str, Any]
) -> None:
    fact = lifecycle.fact_of(given_message)
    assert fact is not None
    line = assembler.take(frame_of(fact), 1)
    assert line is not None
    event = json.loads(line.data)
    assert event["event"]["action"] == action
    assert event["tocsin"]["container"] == detail
    assert ("container" in event) == (given_message["Type"] != "image")


@pytest.mark.parametrize("action", ["exec_create: sh", "top", "resize", "health_status: healthy", "nonsense", ""])
def test_what_becomes_none(action: str) -> None:
    assert lifecycle.fact_of(message("container", action)) is None


def test_a_long_command_is_cut_and_flagged() -> None:
    fact = lifecycle.fact_of(message("container", "exec_start: " + "x" * 9000))
    assert fact and fact.process and fact.process.command_line == "x" * lifecycle.MAX_TEXT
    assert fact.truncated == ["process.command_line"]


def test_birth_names_the_container() -> None:
    born = lifecycle.born(message("container", "create", team="red"))
    assert born == Container(
        id=A, name="web", runtime="docker", image=Image(name="nginx", tag=["1"]), labels={"team": "red"}
    )
    assert lifecycle.born(message("container", "start")) is None


def test_labels_are_bounded() -> None:
    labels = {f"k{n}": "v" * 4096 for n in range(1000)} | {f"a{n}" * 300: "v" for n in range(100)}
    made = lifecycle.container(A, "web", "nginx", labels | {"tocsin.egress": "any", "z": "1"})
    assert made.labels and made.labels["tocsin.egress"] == "any" and made.labels["k0"] == "v" * 256
    assert all(k in ("z", "tocsin.egress") or k in labels for k in made.labels)
    assert len(made.labels) <= 64 and sum(len(k) + len(v) for k, v in made.labels.items()) <= 8192
    many = lifecycle.container(A, "web", "nginx", {f"k{n}": "v" for n in range(1000)})
    assert many.labels and len(many.labels) == 64


@pytest.mark.parametrize(
    ("reference", "name", "tag"),
    [
        ("nginx", "nginx", ""),
        ("nginx:1.25", "nginx", "1.25"),
        ("registry:5000/team/app", "registry:5000/team/app", ""),
        ("registry:5000/team/app:1.2@sha256:" + "0" * 64, "registry:5000/team/app", "1.2"),
        ("sha256:" + "0" * 64, "sha256", "0" * 64),
    ],
)
def test_image_name(reference: str, name: str, tag: str) -> None:
    assert lifecycle.image_name(reference) == (name, tag)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"Type": st.sampled_from(["container", "network", "image"]) | _json, "timeNano": st.integers(0, 2**62) | _json},
        optional={"Action": st.sampled_from(["die", "create", "exec_start: x"]) | _json, "Actor": _json},
    )
    | _json
)
def test_a_docker_that_lies_only_sends_what_is_counted(identity: Identity, lie: Any) -> None:
    queue, assembler = FrameQueue(100), Assembler(identity, {})
    DockerSource("unix:///nowhere", queue)._take_any(lie)
    for frame in queue.take(100, 0):
        with contextlib.suppress(Malformed):
            assembler.take(frame, 1)


@pytest.mark.parametrize(
    ("action", "attribute", "value", "field"),
    [
        ("die", "exitCode", "abc", "exit_code"),
        ("die", "exitCode", "9" * 25, "exit_code"),
        ("die", "exitCode", "256", "exit_code"),
        ("die", "exitCode", "-1", "exit_code"),
        ("exec_die", "exitCode", "\u0663", "exit_code"),
        ("exec_die", "execID", "x" * 300_000, "exec_id"),
        ("exec_start: id", "execID", "AB" * 32, "exec_id"),
        ("kill", "signal", "9" * 25, "signal"),
        ("kill", "signal", "SIGKILL", "signal"),
    ],
)
def test_an_attribute_that_is_not_dockers_is_left_out_and_said_so(
    assembler: Assembler, action: str, attribute: str, value: str, field: str
) -> None:
    fact = lifecycle.fact_of(message("container", action, **{attribute: value}))
    assert fact is not None
    line = assembler.take(frame_of(fact), 1)
    assert line is not None
    told = json.loads(line.data)["tocsin"]
    assert field not in told["container"] and told["truncated"] == [f"tocsin.container.{field}"]


def test_labels_named_like_dockers_attributes_are_not_taken_for_them() -> None:
    labels = {"exitCode": "0", "execID": "ee" * 32, "signal": "9", "team": "red"}
    fact = lifecycle.fact_of(message("container", "start", **labels))
    assert fact and fact.detail == ContainerDetail() and fact.truncated == []
    mixed = lifecycle.mixed_in(labels)
    assert mixed == {"exitCode", "execID", "signal"}
    fact = lifecycle.fact_of(message("container", "exec_die", **labels), mixed)
    assert fact and fact.detail == ContainerDetail()
    assert fact.truncated == ["tocsin.container.exec_id", "tocsin.container.exit_code"]


def test_an_image_is_named_by_its_id_which_no_label_replaces() -> None:
    event = message("image", "pull", name="evil")
    event["Actor"]["ID"] = "nginx:1"
    fact = lifecycle.fact_of(event)
    assert fact and fact.message == "image_pulled: nginx:1"


def test_what_no_store_takes_becomes_another_character() -> None:
    labels = {"a\0b": "1\0", "tocsin.\0protect": "true", "c\ud800": "\udfff", "d\0": "made up", "d\ufffd": "real"}
    born = lifecycle.born(message("container", "create", **labels))
    assert born and born.labels == {
        "a\ufffdb": "1\ufffd", "tocsin.\ufffdprotect": "true", "c\ufffd": "\ufffd", "d\ufffd": "real",
    }  # fmt: skip
    made = lifecycle.container(A, "w\0b", "ngi\ud800x:1\0", {})
    assert made.name == "w\ufffdb" and made.image == Image(name="ngi\ufffdx", tag=["1\ufffd"])
    fact = lifecycle.fact_of(message("container", "exec_start: sh -c \0\ud800"))
    assert fact and fact.process and fact.process.command_line == "sh -c \ufffd\ufffd"
    frame_of(fact), frame_of(ContainerFact(A, born))


class Daemon:
    """A client of a daemon that has these events to tell and no containers."""

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def events(self, since: str, decode: bool) -> Iterator[Any]:
        return iter(e for e in self._events if isinstance(e, Exception) or e["timeNano"] >= float(since) * 1e9)

    def containers(self, all: bool) -> list[Any]:
        return []

    def inspect_container(self, container_id: str) -> Any:
        raise NotFound(container_id)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("label", ["abc", "9" * 25])
def test_no_label_ends_or_repeats_the_stream(monkeypatch: pytest.MonkeyPatch, label: str) -> None:
    begin = time.time_ns() + 10**9
    events = [message("container", "die", exitCode=label) | {"timeNano": begin}]
    events += [message("container", "create", exitCode=label) | {"timeNano": begin + 1}]
    events += [message("container", "pause") | {"timeNano": begin + 2}]
    opened: list[Daemon] = []

    def client(url: str) -> Daemon:
        opened.append(Daemon(events))
        return opened[-1]

    monkeypatch.setattr(docker, "_client", client)
    monkeypatch.setattr(docker, "RETRY_S", (0.01,))
    queue = FrameQueue(1000)
    source = DockerSource("unix:///nowhere", queue)
    source.start(5)
    deadline = time.monotonic() + 5
    while len(opened) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    source.stop()
    facts = [fact_of(frame) for frame in queue.take(1000, 0)]
    assert [f.action for f in facts if isinstance(f, LifecycleFact)] == ["died", "created", "paused"]
    born = [f.container for f in facts if isinstance(f, ContainerFact) and f.container]
    assert [b.name for b in born] == ["web"]
