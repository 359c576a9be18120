from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ecs_mappings.event import decode
from forwarder.forwarder import Forwarder
from forwarder.limits import Limits
from forwarder.sinks.memory import MemorySink
from tocsin.errors import RetryLater, TocsinError

QUICK = Limits(sync_every_s=0.02, cursors_every_s=0.02, max_wait_s=0.05)


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def numbers(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(first, first + count)]


class Closed:
    """A sink's `refuse` that lets nothing through until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, topic: str, offset: int, lines: Sequence[bytes]) -> None:
        if not self.open.is_set():
            raise RetryLater("closed")


def cursor(forwarder: Forwarder, sink: str, topic: str = "events") -> int:
    at: int = forwarder.status()["sinks"][sink][topic]["cursor"]
    return at


def loss_counts(sink: MemorySink) -> list[tuple[str, int]]:
    """(sink, count) of every events_lost event that `sink` got, by its id."""
    found = {}
    for _, line in sink.taken("events"):
        if b"events_lost" in line:
            event = decode(line)
            loss = event.tocsin.loss  # type: ignore[union-attr]
            found[event.event.id] = (loss.sink, loss.count)  # type: ignore[union-attr]
    return list(found.values())  # type: ignore[arg-type]


def test_after_a_stop_every_sink_goes_on_where_it_was(opened: Any) -> None:
    store, slow = MemorySink(), MemorySink(("events",), refuse=Closed())
    first = opened({"store": store, "slow": slow})
    first.take("events", numbers(0, 10))
    first.take("alerts", numbers(0, 3))
    store.wait("events", 10)
    first.stop()
    slow.refuse = None
    second = opened({"store": store, "slow": slow})
    assert second.take("events", numbers(10, 5)) == 10
    assert slow.wait("events", 15) == list(enumerate(numbers(0, 15)))
    assert store.wait("events", 15) == list(enumerate(numbers(0, 15)))
    assert len(store.taken("alerts")) == 3


def test_a_new_sink_gets_all_that_is_kept(opened: Any) -> None:
    first = opened({"store": MemorySink()})
    first.take("events", numbers(0, 10))
    first.stop()
    late = MemorySink()
    opened({"store": MemorySink(), "late": late})
    assert late.wait("events", 10) == list(enumerate(numbers(0, 10)))


def test_a_stop_delivers_what_the_sinks_take(opened: Any) -> None:
    sink = MemorySink(refuse=lambda topic, offset, lines: time.sleep(0.02))
    forwarder = opened({"store": sink}, Limits(batch_records=1))
    for n in range(10):
        forwarder.take("events", numbers(n, 1))
    forwarder.stop(5)
    assert len(sink.taken("events")) == 10


def test_a_stop_does_not_wait_for_a_sink_that_is_away(opened: Any) -> None:
    forwarder = opened({"store": MemorySink(refuse=Closed())}, QUICK)
    forwarder.take("events", numbers(0, 10))
    until(lambda: forwarder.status()["sinks"]["store"]["events"]["retries"] > 0)
    began = time.monotonic()
    forwarder.stop(5)
    assert time.monotonic() - began < 2


def test_one_directory_has_one_forwarder(opened: Any, tmp_path: Path) -> None:
    opened({"store": MemorySink()})
    with pytest.raises(TocsinError, match="in use"):
        Forwarder(tmp_path / "spool", {"store": MemorySink()})


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "events").write_text("a file")
    with pytest.raises(TocsinError, match="cannot be opened"):
        Forwarder(tmp_path / "spool", {"store": MemorySink()})


@pytest.mark.parametrize("name", ["../up", "inbox", "", "A", "a" * 41])
def test_a_sink_name_is_a_plain_word(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a sink"):
        Forwarder(tmp_path / "spool", {name: MemorySink()})


def test_a_backlog_of_events_does_not_delay_alerts(opened: Any) -> None:
    closed = Closed()
    sink = MemorySink(refuse=lambda topic, offset, lines: closed(topic, offset, lines) if topic == "events" else None)
    forwarder = opened({"store": sink})
    forwarder.take("events", numbers(0, 50_000))
    forwarder.take("alerts", [b"alert"])
    assert sink.wait("alerts", 1, timeout_s=1) == [(0, b"alert")]


def test_a_dead_sink_does_not_delay_another(opened: Any) -> None:
    alive = MemorySink()
    forwarder = opened({"dead": MemorySink(refuse=Closed()), "alive": alive})
    forwarder.take("events", numbers(0, 10))
    assert len(alive.wait("events", 10, timeout_s=1)) == 10


def test_dropping_is_counted_exactly_and_told(opened: Any) -> None:
    """A full spool: each sink has either got a record or has it in its count of losses."""
    closed = Closed()
    dead, alive = MemorySink(("events",), refuse=closed), MemorySink(("events",))
    limits = Limits(spool_bytes=200_000, segment_bytes=20_000, sync_every_s=0.02, max_wait_s=0.05, batch_records=10)
    forwarder = opened({"dead": dead, "alive": alive}, limits)
    for n in range(0, 20_000, 50):
        forwarder.take("events", numbers(n, 50))
        until(lambda n=n: cursor(forwarder, "alive") >= n)  # type: ignore[misc]
    until(lambda: bool(loss_counts(alive)))
    closed.open.set()
    until(lambda: cursor(forwarder, "dead") >= 20_000)
    lost = forwarder.status()["sinks"]["dead"]["events"]["lost"]
    for sink in (alive, dead):  # the dead one too, for which the first events that told of losses were lost as well
        until(lambda sink=sink: sum(count for _, count in loss_counts(sink)) == lost)  # type: ignore[misc]
        assert {name for name, _ in loss_counts(sink)} == {"dead"}
    forwarder.stop()
    status = forwarder.status()
    assert status["sinks"]["alive"]["events"]["lost"] == 0
    assert status["sinks"]["dead"]["events"]["lost"] == lost > 5000
    assert lost + len({offset for offset, _ in dead.taken("events")}) == status["topics"]["events"]["next"]
    assert sum(b"events_lost" not in line for _, line in alive.taken("events")) == 20_000


def test_a_damaged_record_is_counted_for_every_sink_and_told(opened: Any, tmp_path: Path) -> None:
    a, b = MemorySink(("events",), refuse=Closed()), MemorySink(("events",), refuse=Closed())
    first = opened({"a": a, "b": b})
    for n in range(0, 30, 3):
        first.take("events", numbers(n, 3))
    first.stop(0)
    path = tmp_path / "spool" / "events" / f"{0:020d}.segment"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    a.refuse = b.refuse = None
    second = opened({"a": a, "b": b}, QUICK)
    a.wait("events", 29)
    b.wait("events", 29)
    assert sorted(loss_counts(a)) == sorted(loss_counts(b)) == [("a", 3), ("b", 3)]
    assert a.taken("events")[:27] == [(n, line) for n, line in enumerate(numbers(0, 30)) if n not in (15, 16, 17)]
    assert second.status()["sinks"]["a"]["events"]["lost"] == 3


def test_losses_are_not_told_again_after_a_restart(opened: Any, tmp_path: Path) -> None:
    test_a_damaged_record_is_counted_for_every_sink_and_told(opened, tmp_path)
    forwarder: Forwarder = opened.last()
    forwarder.stop()
    sink = MemorySink(("events",))
    again = opened({"a": sink, "b": MemorySink(("events",))})
    again.take("events", [b"after"])
    sink.wait("events", 1)
    again.stop()
    assert loss_counts(sink) == [] and again.status()["sinks"]["b"]["events"]["lost"] == 0


def test_delivered_segments_are_kept_for_the_retention_and_then_go(opened: Any) -> None:
    closed = Closed()
    quick, slow = MemorySink(("events",)), MemorySink(("events",), refuse=closed)
    limits = Limits(segment_bytes=2000, retain_s=0.5, sync_every_s=0.02, max_wait_s=0.05)
    forwarder = opened({"quick": quick, "slow": slow}, limits)
    for n in range(0, 1000, 20):
        forwarder.take("events", numbers(n, 20))
    quick.wait("events", 1000)
    time.sleep(0.7)
    assert forwarder.status()["topics"]["events"]["first"] == 0, "one sink has not had it"
    closed.open.set()
    slow.wait("events", 1000)
    until(lambda: forwarder.status()["topics"]["events"]["segments"] == 1)
    assert forwarder.status()["sinks"]["slow"]["events"]["lost"] == 0
    began = time.monotonic()
    for n in range(1000, 2000, 20):
        forwarder.take("events", numbers(n, 20))
    until(lambda: cursor(forwarder, "slow") == 2000)
    first = forwarder.status()["topics"]["events"]["first"]
    assert first < 1000 or time.monotonic() - began > 0.5, "what was just delivered is kept for a while"


def test_a_rewind_beyond_what_is_kept_says_where_it_ended(opened: Any) -> None:
    sink = MemorySink(("events",))
    limits = Limits(segment_bytes=2000, retain_s=0, sync_every_s=0.02)
    forwarder = opened({"store": sink}, limits)
    for n in range(0, 1000, 20):
        forwarder.take("events", numbers(n, 20))
    sink.wait("events", 1000)
    until(lambda: forwarder.status()["topics"]["events"]["segments"] == 1)
    oldest = forwarder.status()["topics"]["events"]["first"]
    reply = forwarder.rewind("events", "store", offset=3)
    assert reply == {"offset": oldest, "oldest": oldest, "next": 1000}
    sink.wait("events", 1000 + 1000 - oldest)
    assert forwarder.rewind("events", "store", offset=10**9)["offset"] == 1000
    assert forwarder.status()["sinks"]["store"]["events"]["lost"] == 0


def test_a_rewind_survives_a_kill(opened: Any, tmp_path: Path) -> None:
    sink = MemorySink(("events",))
    forwarder = opened({"store": sink}, Limits(cursors_every_s=0.01, sync_every_s=0.01))
    forwarder.take("events", numbers(0, 10))
    until(lambda: b"10" in _read(tmp_path / "spool" / "cursors.json"))
    sink.refuse = Closed()
    forwarder.rewind("events", "store", offset=4)
    assert _read(tmp_path / "spool" / "cursors.json").strip() == b'{"events":{"store":4}}'


def test_after_a_power_cut_sinks_skip_nothing_and_are_told(tmp_path: Path) -> None:
    directory, sink = tmp_path / "spool", MemorySink(("events",))
    first = Forwarder(directory, {"store": sink}, QUICK, boot_id="one")
    first.start()
    first.take("events", numbers(0, 10))
    until(lambda: b"10" in _read(directory / "cursors.json"))
    saved = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    first.stop()
    for path, data in saved.items():
        path.write_bytes(data)
    os.truncate(directory / "events" / f"{0:020d}.segment", 50)
    second = Forwarder(directory, {"store": sink}, QUICK, boot_id="two")
    second.start()
    offset = second.take("events", [b"after"])
    assert offset > 10**9
    sink.wait("events", 12)
    until(lambda: len(sink.taken("events")) >= 12)
    lines = [line for _, line in sink.taken("events")[10:]]
    second.stop()
    assert b"after" in lines and any(b"events_lost" in line and b"without warning" in line for line in lines)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
