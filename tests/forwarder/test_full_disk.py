"""A disk that is full for real: a tmpfs of 4 MiB."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from forwarder.forwarder import Forwarder
from forwarder.limits import Limits
from forwarder.reader import Reader
from forwarder.sinks.memory import MemorySink
from forwarder.spool import Spool
from tocsin.errors import RetryLater

# The spool's own bound is far above the disk's: only the disk says no.
LIMITS = Limits(spool_bytes=1 << 30, segment_bytes=512 * 1024, sync_every_s=0.02, max_wait_s=0.05, batch_records=100)
BATCH = [b"x" * 1000 for _ in range(100)]


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def fill(path: Path) -> None:
    """Uses up what is left, as somebody else would."""
    with pytest.raises(OSError, match="No space left"), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def cursor(forwarder: Forwarder, sink: str) -> int:
    at: int = forwarder.status()["sinks"][sink]["events"]["cursor"]
    return at


class Gate:
    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, topic: str, offset: int, lines: Sequence[bytes]) -> None:
        if not self.open.is_set():
            raise RetryLater("closed")


def test_delivered_segments_make_room(opened: Any, small_disk: Path) -> None:
    sink = MemorySink(("events",))
    forwarder = opened({"store": sink}, LIMITS, small_disk / "spool")
    for n in range(200):  # five times the disk
        forwarder.take("events", BATCH)
        sink.wait("events", (n + 1) * 100)
        until(lambda n=n: cursor(forwarder, "store") >= (n + 1) * 100)  # type: ignore[misc]
    assert forwarder.status()["sinks"]["store"]["events"]["lost"] == 0
    assert [offset for offset, _ in sink.taken("events")] == list(range(20_000))


def test_what_no_sink_has_goes_last_and_is_counted(opened: Any, small_disk: Path) -> None:
    gate, alive = Gate(), MemorySink(("events",))
    dead = MemorySink(("events",), refuse=gate)
    forwarder = opened({"dead": dead, "alive": alive}, LIMITS, small_disk / "spool")
    for n in range(100):
        forwarder.take("events", BATCH)
        until(lambda n=n: cursor(forwarder, "alive") >= (n + 1) * 100)  # type: ignore[misc]
    gate.open.set()
    until(lambda: cursor(forwarder, "dead") >= 10_000)
    forwarder.stop()
    status = forwarder.status()
    lost = status["sinks"]["dead"]["events"]["lost"]
    assert lost > 0 and status["sinks"]["alive"]["events"]["lost"] == 0
    assert lost + len(dead.taken("events")) == status["topics"]["events"]["next"]


def test_when_others_fill_the_disk_producers_hold_until_there_is_room(
    opened: Any, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = MemorySink(("events",), refuse=Gate())
    forwarder = opened({"store": sink}, LIMITS, small_disk / "spool")
    taken = [forwarder.take("events", [b"first"])]
    fill(small_disk / "filler")
    refused = 0
    for _ in range(50):
        try:
            taken.append(forwarder.take("events", BATCH))
        except RetryLater as e:
            assert e.after_s is not None and "No space left" in str(e)
            refused += 1
    assert refused > 1
    assert sum("cannot be written" in record.message for record in caplog.records) == 1, "said once, not each time"
    (small_disk / "filler").unlink()
    taken.append(forwarder.take("events", [b"last"]))
    sink.refuse = None
    found = dict(sink.wait("events", 2))
    until(lambda: cursor(forwarder, "store") == forwarder.status()["topics"]["events"]["next"])
    found = dict(sink.taken("events"))
    assert found[0] == b"first" and found[taken[-1]] == b"last"
    assert sorted(found) == list(range(len(found))), "a refused append leaves no hole and takes no offset twice"
    until(lambda: forwarder.status()["trouble"] is None)


def test_a_spool_on_a_full_disk_opens_again(opened: Any, small_disk: Path) -> None:
    sink = MemorySink(("events",), refuse=Gate())
    first = opened({"store": sink}, LIMITS, small_disk / "spool")
    first.take("events", [b"a", b"b"])
    fill(small_disk / "filler")
    with pytest.raises(RetryLater):
        for _ in range(50):
            first.take("events", BATCH)
    count = first.status()["topics"]["events"]["next"]
    first.stop(0)
    (small_disk / "filler").unlink()
    sink.refuse = None
    second = opened({"store": sink}, LIMITS, small_disk / "spool")
    assert second.take("events", [b"c"]) == count
    assert dict(sink.wait("events", count + 1))[count] == b"c"


def test_a_dropped_segment_frees_its_room_though_a_reader_has_it_open(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", max_bytes=1 << 30, segment_bytes=1 << 19, boot_id="b")
    for _ in range(20):
        spool.append(BATCH)
    reader = Reader(spool)
    reader.read(0, 1, 1)
    before, size = shutil.disk_usage(small_disk).free, spool.size_bytes
    assert spool.drop_oldest()
    freed = shutil.disk_usage(small_disk).free - before
    assert freed >= size - spool.size_bytes > 400_000
    assert reader.read(5, 1, 1).offset == spool.first_offset
    reader.close()
    spool.close()


def test_a_restart_on_a_full_disk_delivers_what_is_there(opened: Any, small_disk: Path) -> None:
    sink = MemorySink(("events",), refuse=Gate())
    first = opened({"store": sink}, LIMITS, small_disk / "spool")
    first.take("events", [b"a", b"b"])
    until(lambda: (small_disk / "spool" / "cursors.json").exists())
    first.stop(0)
    fill(small_disk / "filler")
    sink.refuse = None
    for n in (1, 2):
        again = opened({"store": sink}, LIMITS, small_disk / "spool")
        assert sink.wait("events", 2 * n)[-2:] == [(0, b"a"), (1, b"b")]
        assert again.rewind("events", "store", offset=0)["offset"] == 0
        again.stop(0)
