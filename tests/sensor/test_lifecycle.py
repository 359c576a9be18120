"""Docker's messages as facts. The messages are what dockerd 20.10 sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_mappings.event import Container, Image
from sensor.assembler import Assembler
from sensor.frames import frame_of
from sensor.sources import lifecycle

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
        (message("container", "exec_die", execID="x", exitCode="1"), "exec_ended", {"exec_id": "x", "exit_code": 1}),
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
)
def test_a_docker_that_lies_raises_only_what_the_source_catches(lie: dict[str, Any]) -> None:
    from sensor.sources.docker import ERRORS

    for look in (lifecycle.fact_of, lifecycle.born, lifecycle.container_of, lifecycle.changes_container):
        try:
            look(lie)
        except ERRORS:
            pass
