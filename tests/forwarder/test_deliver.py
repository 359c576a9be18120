from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from forwarder.dead_letters import DeadLetters
from forwarder.deliver import Lane
from forwarder.limits import Limits
from forwarder.position import Position
from forwarder.sinks import Outcome, Sink
from forwarder.sinks.memory import MemorySink
from forwarder.spool import Spool
from tocsin.errors import Rejected, RetryLater

MakeLane = Callable[..., Lane]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "events", max_bytes=1 << 24, segment_bytes=1 << 20, boot_id="b")
    yield spool
    spool.close()


@pytest.fixture
def lane(tmp_path: Path, spool: Spool) -> Iterator[MakeLane]:
    made: list[Lane] = []

    def make(sink: Sink, topic: str = "events", limits: Limits | None = None) -> Lane:
        letters = DeadLetters(tmp_path / "dead", "sink", 1 << 20, lambda count: None)
        made.append(
            Lane(topic, "sink", sink, spool, Position(0), letters, lambda lost: None, limits or Limits(max_wait_s=0.05))
        )
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()
        one.join(5)
        assert one.status()["state"] == "stopped"


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def numbers(first: int, count: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, first + count)]


class Stubborn:
    """Raises the given errors first, in turn."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.times: list[float] = []

    def __call__(self, topic: str, offset: int, lines: Sequence[bytes]) -> None:
        self.times.append(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)


def test_records_arrive_in_order_with_their_offsets(spool: Spool, lane: MakeLane) -> None:
    sink = MemorySink()
    one = lane(sink)
    for n in range(0, 300, 3):
        spool.append(numbers(n, 3))
    assert sink.wait("events", 300) == list(enumerate(numbers(0, 300)))
    until(lambda: one.position.cursor == 300)
    assert one.status()["delivered"] == 300 and one.status()["lag"] == 0


def test_batches_are_bounded(spool: Spool, lane: MakeLane) -> None:
    sizes: list[int] = []
    spool.append(numbers(0, 5000))
    sink = MemorySink(refuse=lambda topic, offset, lines: sizes.append(len(lines)))
    lane(sink, limits=Limits(batch_records=1000))
    sink.wait("events", 5000)
    assert max(sizes) <= 1000 + 512


def test_any_failure_is_tried_again_until_it_works(spool: Spool, lane: MakeLane) -> None:
    stubborn = Stubborn(*[RetryLater("busy")] * 6, ValueError("a defect"), OSError(28, "full"))
    sink = MemorySink(refuse=stubborn)
    one = lane(sink)
    spool.append(numbers(0, 3))
    assert sink.wait("events", 3) == list(enumerate(numbers(0, 3)))
    until(lambda: one.position.cursor == 3)
    status = one.status()
    assert status["retries"] == 8 and status["error"] is None and status["state"] == "waiting"


def test_the_pause_the_receiver_asks_for_is_kept(spool: Spool, lane: MakeLane) -> None:
    stubborn = Stubborn(RetryLater("busy", after_s=0.4))
    sink = MemorySink(refuse=stubborn)
    lane(sink)
    spool.append(numbers(0, 1))
    sink.wait("events", 1)
    assert 0.4 <= stubborn.times[1] - stubborn.times[0] < 0.9


def test_the_pauses_grow_but_not_beyond_the_limit(spool: Spool, lane: MakeLane) -> None:
    stubborn = Stubborn(*[RetryLater("busy")] * 12)
    sink = MemorySink(refuse=stubborn)
    lane(sink, limits=Limits(max_wait_s=0.1))
    spool.append(numbers(0, 1))
    sink.wait("events", 1)
    pauses = [b - a for a, b in zip(stubborn.times, stubborn.times[1:], strict=False)]
    assert all(0.009 <= pause < 0.4 for pause in pauses)


def test_stopping_ends_a_long_pause(spool: Spool, lane: MakeLane) -> None:
    one = lane(MemorySink(refuse=Stubborn(*[RetryLater("gone", after_s=30)] * 9)))
    spool.append(numbers(0, 1))
    until(lambda: one.status()["state"] == "retrying")
    began = time.monotonic()
    one.stop()
    one.join(5)
    assert time.monotonic() - began < 1
    assert one.position.cursor == 0


def test_a_rejected_document_goes_to_the_dead_letters_and_blocks_nothing(spool: Spool, lane: MakeLane) -> None:
    sink = MemorySink(judge=lambda line: "seven" if line == b"7" else None)
    one = lane(sink)
    spool.append(numbers(0, 20))
    until(lambda: one.position.cursor == 20)
    assert [offset for offset, _ in sink.taken("events")] == [n for n in range(20) if n != 7]
    assert one.status()["rejected"] == 1 and one.status()["delivered"] == 19
    assert one._letters.kept == 1 and one._letters.last_reason == "seven"


def test_of_a_batch_that_is_rejected_whole_only_the_record_at_fault_is_lost(spool: Spool, lane: MakeLane) -> None:
    bad = {b"0", b"13", b"14", b"99"}

    def refuse(topic: str, offset: int, lines: Sequence[bytes]) -> None:
        if bad & set(lines):
            raise Rejected("one of these is bad")

    sink = MemorySink(refuse=refuse)
    one = lane(sink)
    spool.append(numbers(0, 100))
    until(lambda: one.position.cursor == 100)
    assert [line for _, line in sink.taken("events")] == [n for n in numbers(0, 100) if n not in bad]
    assert one.status()["rejected"] == len(bad)


def test_a_sink_that_answers_too_little_is_not_believed(spool: Spool, lane: MakeLane) -> None:
    class Sloppy(MemorySink):
        calls = 0

        def deliver(self, topic: str, offset: int, lines: Sequence[bytes]) -> list[Outcome | None]:
            self.calls += 1
            return super().deliver(topic, offset, lines)[: None if self.calls > 2 else -1]

    sink = Sloppy()
    one = lane(sink)
    spool.append(numbers(0, 4))
    until(lambda: one.position.cursor == 4)
    assert sink.calls == 3


def test_a_defect_of_our_own_passes_nothing_over(spool: Spool, lane: MakeLane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.deliver._AFTER_DEFECT_S", 0.05)
    defects = [ZeroDivisionError("odd")]

    sink = MemorySink()
    one = lane(sink)
    real = one._deliver

    def deliver(*claimed: object) -> None:
        if defects:
            raise defects.pop()
        real(*claimed)  # type: ignore[arg-type]

    monkeypatch.setattr(one, "_deliver", deliver)
    spool.append(numbers(0, 5))
    assert sink.wait("events", 5) == list(enumerate(numbers(0, 5)))
    until(lambda: one.position.cursor == 5)
    assert one.status()["error"] is None


def test_a_rewind_takes_back_a_batch_on_its_way(spool: Spool, lane: MakeLane) -> None:
    entered, leave = threading.Event(), threading.Event()
    gate = [True]

    def refuse(topic: str, offset: int, lines: Sequence[bytes]) -> None:
        if offset >= 10 and gate[0]:
            entered.set()
            assert leave.wait(10)

    sink = MemorySink(refuse=refuse)
    one = lane(sink)
    spool.append(numbers(0, 10))
    sink.wait("events", 10)
    until(lambda: one.position.cursor == 10)
    spool.append(numbers(10, 5))
    assert entered.wait(5)
    assert one.position.back(4) == 4
    one.wake()
    assert not one.settled(0.05)
    gate[0] = False
    leave.set()
    assert one.settled(5)
    offsets = [offset for offset, _ in sink.wait("events", 10 + 5 + 11)]
    assert offsets == [*range(10), *range(10, 15), *range(4, 15)]
    until(lambda: one.position.cursor == 15)


def test_a_rewind_ends_a_pause_and_the_old_batch_is_not_tried_again(spool: Spool, lane: MakeLane) -> None:
    stubborn = Stubborn()
    sink = MemorySink(refuse=stubborn)
    one = lane(sink)
    spool.append(numbers(0, 5))
    until(lambda: one.position.cursor == 5)
    stubborn.errors = [RetryLater("gone", after_s=30)]
    spool.append(numbers(5, 5))
    until(lambda: one.status()["state"] == "retrying")
    one.position.back(2)
    one.wake()
    assert [offset for offset, _ in sink.wait("events", 13)] == [*range(5), *range(2, 10)]


def test_alerts_that_the_sink_names_are_remembered_and_bounded(spool: Spool, lane: MakeLane) -> None:
    class Naming(MemorySink):
        def deliver(self, topic: str, offset: int, lines: Sequence[bytes]) -> list[Outcome | None]:
            super().deliver(topic, offset, lines)
            return [Outcome(line.decode(), "no" if line == b"3" else None) for line in lines]

    before = time.time_ns()
    one = lane(Naming(), topic="alerts")
    spool.append(numbers(0, 5))
    until(lambda: one.position.cursor == 5)
    assert list(one.acknowledged) == ["0", "1", "2", "4"]
    assert all(before <= at <= time.time_ns() for at in one.acknowledged.values())
    spool.append(numbers(5, 6000))
    until(lambda: one.position.cursor == 6005)
    assert len(one.acknowledged) <= 4096 and "6004" in one.acknowledged
