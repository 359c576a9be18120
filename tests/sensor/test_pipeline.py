"""Frames in, delivered lines out: order, loss accounting, restart, and foreign bytes."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecs_mappings.event import Container
from sensor import pipeline as pipeline_module
from sensor import probes
from sensor.assembler import Assembler, Identity
from sensor.frames import FACTS, ContainerFact, Frame, frame_of
from sensor.pipeline import Host, Pipeline
from sensor.record import Malformed
from tocsin.errors import RetryLater


class World:
    """Everything around a pipeline."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.away = False
        self.kernel: dict[str, int] = {}
        self.failures: list[BaseException] = []
        self.delivered = threading.Condition()

    def deliver(self, lines: list[bytes]) -> None:
        if self.away:
            raise RetryLater("away", 0.01)
        with self.delivered:
            self.lines += [json.loads(line) for line in lines]
            self.delivered.notify_all()

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 5.0) -> dict[str, Any]:
        with self.delivered:
            assert self.delivered.wait_for(lambda: any(map(wanted, self.lines)), timeout_s), self.lines[-3:]
            return next(line for line in self.lines if wanted(line))

    def actions(self) -> Counter[str]:
        return Counter(line["event"]["action"] for line in self.lines)

    def kernel_losses(self) -> Mapping[str, int]:
        return dict(self.kernel)


@pytest.fixture
def world() -> World:
    return World()


Make = Callable[..., Pipeline]


@pytest.fixture
def make(world: World, identity: Identity, tmp_path: Path) -> Iterator[Make]:
    made: list[Pipeline] = []

    def new(**more: Any) -> Pipeline:
        host = Host(lambda _: False, world.kernel_losses, world.failures.append)
        found = Pipeline(identity, probes.load_all(), world.deliver, host, tmp_path / "run.state", **more)
        made.append(found)
        found.start()
        return found

    yield new
    for pipeline in made:
        if pipeline._thread.is_alive():
            pipeline.stop(1.0)
    assert world.failures == []


def action(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: bool(line["event"]["action"] == name)


def test_sends_at_once_and_in_order(world: World, make: Make, records: Any) -> None:
    pipeline = make()
    world.wait_for(action("started"))
    began = time.monotonic()
    pipeline.queue.put(records.exec(b"ls"))
    world.wait_for(action("exec"))
    assert time.monotonic() - began < 0.2
    for n in range(2000):
        pipeline.queue.put(records.exit(n << 8 & 0xFF00))
    pipeline.stop(5.0)
    assert [line["event"]["sequence"] for line in world.lines] == list(range(1, len(world.lines) + 1))
    assert world.actions()["exit"] == 2000


def test_kernel_losses_are_reported_once_with_probe_count_and_span(world: World, make: Make) -> None:
    pipeline = make()
    world.kernel = {"exec": 3}
    first = world.wait_for(action("events_lost"))
    assert first["tocsin"]["loss"] == {"stage": "kernel", "probe": "exec", "count": 3}
    assert first["event"]["start"] <= first["event"]["end"]
    world.kernel = {"exec": 10, "exit": 1}
    pipeline.stop(5.0)
    counts = [x["tocsin"]["loss"]["count"] for x in world.lines if x["event"]["action"] == "events_lost"]
    assert sum(counts) == 11


def test_what_a_full_queue_drops_is_reported_when_the_forwarder_is_back(world: World, make: Make, records: Any) -> None:
    pipeline = make(queue_events=50)
    world.wait_for(action("started"))
    world.away = True
    for _ in range(400):
        pipeline.queue.put(records.exit())
    deadline = time.monotonic() + 5
    while pipeline.losses.total < 350 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    world.away = False
    lost = world.wait_for(action("events_lost"))
    assert lost["tocsin"]["loss"] == {"stage": "queue", "count": 350}
    pipeline.stop(5.0)
    assert world.actions()["exit"] == 50
    assert pipeline.outbox.delivered + pipeline.losses.total == pipeline.assembler.sequence


def test_an_undelivered_run_is_reported_by_the_next(world: World, make: Make, records: Any) -> None:
    pipeline = make()
    world.wait_for(action("started"))
    world.away = True
    for _ in range(7):
        pipeline.queue.put(records.exit())
    pipeline.stop(0.2)
    world.away = False
    make()
    lost = world.wait_for(action("events_lost"))
    assert lost["tocsin"]["loss"] == {"stage": "restart", "count": 7}
    assert "run1" in lost["event"]["reason"]


def test_heartbeats_count(world: World, make: Make, records: Any) -> None:
    pipeline = make(heartbeat_s=0.3)
    pipeline.queue.put(records.exec(b"ls"))
    heartbeat = world.wait_for(lambda x: x["event"]["action"] == "heartbeat" and x["tocsin"]["sensor"]["captured"])
    counters = heartbeat["tocsin"]["sensor"]
    assert counters["captured"] == 1 and counters["lost"] == 0 and counters["rss_bytes"] > 1_000_000
    assert counters["run"] == "run1"


def test_a_malformed_record_is_counted_reported_and_harms_nobody(
    world: World, make: Make, records: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = make()
    for raw in (b"", b"\xff" * 300, records.exec(b"ls").data[:-1]):
        pipeline.queue.put(Frame("exec", raw))
    pipeline.queue.put(Frame("nobody", b"x"))
    pipeline.queue.put(records.exec(b"ls"))
    pipeline.stop(5.0)
    lost = {x["tocsin"]["loss"]["probe"]: x["tocsin"]["loss"] for x in world.lines if "loss" in x["tocsin"]}
    assert lost == {
        "exec": {"stage": "source", "probe": "exec", "count": 3},
        "nobody": {"stage": "source", "probe": "nobody", "count": 1},
    }
    assert world.actions()["exec"] == 1
    assert sum("not understood" in r.message for r in caplog.records) == 2  # once a kind


def test_a_container_is_forgotten_within_a_second_of_its_removal(world: World, make: Make, records: Any) -> None:
    pipeline = make()
    pipeline.queue.put(frame_of(ContainerFact(records.container, Container(id=records.container, name="web"))))
    pipeline.queue.put(records.exec(b"a"))
    pipeline.queue.put(frame_of(ContainerFact(records.container, removed=True)))
    pipeline.queue.put(records.exec(b"b"))
    world.wait_for(lambda x: x.get("process", {}).get("args") == ["b"])
    assert [x["container"]["name"] for x in world.lines if "container" in x] == ["web", "web"]
    deadline = time.monotonic() + 1.0
    while records.container in pipeline.assembler.containers:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_clocks_jump_is_followed(world: World, make: Make, records: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make()
    before = pipeline.assembler.offset_ns
    jumped = before + 3_600_000_000_000
    monkeypatch.setattr("sensor.clock.wall_offset_ns", lambda: jumped)
    deadline = time.monotonic() + 2.0
    while pipeline.assembler.offset_ns != jumped:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_defect_ends_the_pipeline_loudly(
    world: World, make: Make, records: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = make()

    def broken(_: list[bytes]) -> None:
        raise RuntimeError("defect")

    pipeline.outbox._deliver = broken
    pipeline.queue.put(records.exec(b"ls"))
    pipeline._thread.join(5.0)
    assert [str(e) for e in world.failures] == ["defect"]
    world.failures.clear()


def test_the_queue_pushes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = pipeline_module.FrameQueue(3)
    assert [queue.put(Frame("x", b"")) for _ in range(4)] == [True, True, False, False]
    assert not queue.wait_for_room(0.01)
    assert len(queue.take(2, 0)) == 2 and queue.wait_for_room(0.01)
    assert len(queue.take(9, 0)) == 2 and queue.take(9, 0.01) == []
    queue = pipeline_module.FrameQueue(99, limit_bytes=10)
    assert [queue.put(Frame("x", b"12345")) for _ in range(3)] == [True, False, False]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(st.sampled_from([*probes.names(), *FACTS, "?"]), st.binary(max_size=600))
def test_random_bytes_are_malformed_or_harmless(new_assembler: Callable[[], Assembler], kind: str, data: bytes) -> None:
    """Anything may come out of a broken ring or a foreign recording: an event or Malformed, nothing else."""
    try:
        new_assembler().take(Frame(kind, data), 1)
    except Malformed:
        pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(st.sampled_from(["exec", "exit", "connect"]), st.data())
def test_a_record_with_some_bytes_changed_is_malformed_or_harmless(
    new_assembler: Callable[[], Assembler], records: Any, probe: str, data: st.DataObject
) -> None:
    whole: dict[str, Frame] = {
        "exec": records.exec(b"ls", b"-l", chain=((1, 2, 1), (3, 4, 0))),
        "exit": records.exit(),
        "connect": records.connect(0, 6, bytes(16), 1, bytes(16), 2),
    }
    raw = bytearray(whole[probe].data)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=20)):
        raw[at] = value
    assembler = new_assembler()
    try:
        line = assembler.take(Frame(probe, bytes(raw)), 1)
    except Malformed:
        assert assembler.sequence == 0
    else:
        assert line is None or json.loads(line.data)["event"]["sequence"] == 1
