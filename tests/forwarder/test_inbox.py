"""The forwarder as producers and operators see it: over its socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_mappings.event import MAX_DOCUMENT_BYTES
from forwarder import inbox
from forwarder.forwarder import Forwarder
from forwarder.sinks.memory import MemorySink
from tocsin.errors import Rejected, RetryLater
from tocsin.link import Client


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def forwarder(opened: Any, sink: MemorySink) -> Forwarder:
    made: Forwarder = opened({"store": sink})
    return made


@pytest.fixture
def client(forwarder: Forwarder, serve: Any) -> Iterator[Client]:
    with serve("forwarder", forwarder.routes()) as path, contextlib.closing(Client(path)) as client:
        yield client


def test_what_is_posted_is_taken_and_delivered(client: Client, sink: MemorySink) -> None:
    assert client.post("/events", b"a\nb\n").decoded() == {"taken": 2, "offset": 0, "refused": 0}
    assert client.post("/events", b"c\n").decoded() == {"taken": 1, "offset": 2, "refused": 0}
    assert client.post("/alerts", b"d").decoded() == {"taken": 1, "offset": 0, "refused": 0}
    assert sink.wait("events", 3) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert sink.wait("alerts", 1) == [(0, b"d")]


def test_an_empty_body_takes_nothing(client: Client) -> None:
    assert client.post("/events", b"").decoded()["taken"] == 0
    assert client.post("/events", b"\n\n").decoded()["taken"] == 0


def test_a_line_too_long_becomes_a_dead_letter_and_the_rest_goes_on(client: Client, sink: MemorySink) -> None:
    longest = b"x" * MAX_DOCUMENT_BYTES
    reply = client.post("/events", b"\n".join([b"a", longest + b"y", longest, b"", b"b"])).decoded()
    assert reply == {"taken": 3, "offset": 0, "refused": 1}
    assert [line for _, line in sink.wait("events", 3)] == [b"a", longest, b"b"]
    letters = client.get("/status").decoded()["dead_letters"]["inbox"]
    assert letters["kept"] == 1 and str(MAX_DOCUMENT_BYTES) in letters["last_reason"]


@given(st.lists(st.binary(max_size=6), max_size=8))
def test_split_keeps_every_record_and_its_order(lines: list[bytes]) -> None:
    body = b"\n".join(lines)
    assert inbox.split("events", body) == ([line for line in body.split(b"\n") if line], [])
    assert inbox.split("events", body + b"\n") == inbox.split("events", body)


def test_rewind_over_the_socket(client: Client, sink: MemorySink) -> None:
    client.post("/events", b"a\nb\nc\n")
    sink.wait("events", 3)
    while client.get("/status").decoded()["sinks"]["store"]["events"]["cursor"] < 3:
        pass
    reply = client.post("/rewind?topic=events&sink=store&offset=1").decoded()
    assert reply == {"offset": 1, "oldest": 0, "next": 3}
    assert sink.wait("events", 5)[3:] == [(1, b"b"), (2, b"c")]
    assert client.post("/rewind?sink=store&seconds=60").decoded()["offset"] == 0
    assert client.post("/rewind?sink=store&seconds=0").decoded()["next"] == 3


@pytest.mark.parametrize(
    "query",
    [
        "topic=events&sink=store",
        "topic=events&sink=store&offset=1&seconds=2",
        "topic=events&sink=store&offset=-1",
        "topic=events&sink=store&offset=x",
        "topic=events&sink=store&seconds=nan",
        "topic=events&sink=store&seconds=inf",
        "topic=events&sink=store&offset=99999999999999999999",
        "topic=nothing&sink=store&offset=1",
        "topic=events&sink=nobody&offset=1",
        "topic=events&sink=..%2Fstore&offset=1",
        "offset=1",
    ],
)
def test_a_rewind_that_makes_no_sense_is_refused(client: Client, query: str) -> None:
    with pytest.raises(Rejected):
        client.post(f"/rewind?{query}")


def test_dead_letters_are_sent_again_on_demand(client: Client, sink: MemorySink) -> None:
    sink.judge = lambda line: "bad weather" if line == b"b" else None
    client.post("/alerts", b"a\nb\n")
    sink.wait("alerts", 1)
    while client.get("/status").decoded()["dead_letters"]["store"]["kept"] < 1:
        pass
    sink.judge = None
    assert client.post("/deadletters/resend?sink=store").decoded() == {"resent": 1}
    assert sink.wait("alerts", 2) == [(0, b"a"), (2, b"b")]
    with pytest.raises(Rejected):
        client.post("/deadletters/resend?sink=../store")


def test_the_status_tells_all(client: Client, sink: MemorySink) -> None:
    client.post("/events", b"a\nb\n")
    sink.wait("events", 2)
    status = client.get("/status").decoded()
    assert status["taking"] and status["trouble"] is None
    topic = status["topics"]["events"]
    assert (topic["first"], topic["next"], topic["appended"], topic["segments"]) == (0, 2, 2, 1)
    assert topic["bytes"] > 0
    expected = {"cursor", "lag", "state", "delivered", "rejected", "retries", "error", "lost"}
    assert set(status["sinks"]["store"]["events"]) == expected
    assert status["losses"] == [] and status["stored"] == {}


def test_while_stopping_the_producers_hold(client: Client, forwarder: Forwarder) -> None:
    forwarder.stop(1)
    with pytest.raises(RetryLater) as raised:
        client.post("/events", b"a\n")
    assert raised.value.after_s == 1.0


def test_losses_are_in_the_status(client: Client, forwarder: Forwarder) -> None:
    forwarder._lose("events", "store", "a test", range(3, 5))
    losses = client.get("/status").decoded()["losses"]
    assert losses[0]["count"] == 2 and losses[0]["reason"] == "a test"
    assert msgspec.json.encode(losses)
