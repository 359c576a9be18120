"""A record waits a moment for the name of its container, and never longer."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ecs_mappings.event import Container
from sensor.frames import ContainerFact, Frame, frame_of
from sensor.waiting import ASK_AGAIN_NS, LATE_NS, MAX_WAITING, WAIT_NS, Waiting

A, B = "a" * 64, "b" * 64


class Room:
    def __init__(self, answers: bool = True) -> None:
        self.known: set[str] = set()
        self.asked: list[str] = []
        self.answers = answers
        self.waiting = Waiting(self.known.__contains__, ["exec", "exit"], self.ask)

    def ask(self, container_id: str) -> bool:
        self.asked.append(container_id)
        return self.answers

    def admit(self, frame: Frame, now_ns: int = 0) -> list[Frame]:
        return list(self.waiting.admit(frame, now_ns))


def named(container_id: str) -> Frame:
    return frame_of(ContainerFact(container_id, Container(id=container_id, name="web")))


def record(records: Any, container_id: str, pid: int = 1) -> Frame:
    frame: Frame = records.exec(b"ls", container=container_id.encode(), pid=pid)
    return frame


def test_the_name_comes_first_and_the_order_stays(records: Any) -> None:
    room = Room()
    first, second, other = (record(records, c, p) for c, p in ((A, 1), (A, 2), (B, 3)))
    room.known.add(B)
    assert room.admit(first) == []
    assert room.admit(other) == [other]
    assert room.admit(second) == []
    assert room.admit(named(A)) == [named(A), first, second]
    assert room.asked == [A] and len(room.waiting) == 0


def test_nobody_waits_longer_than_the_bound(records: Any) -> None:
    room = Room()
    frame = record(records, A)
    assert room.admit(frame) == []
    assert room.waiting.overdue(WAIT_NS - 1) == []
    assert room.waiting.overdue(WAIT_NS) == [frame]
    assert room.admit(frame, WAIT_NS + 1) == [frame]  # given up on: the next does not wait
    assert room.admit(frame, WAIT_NS + LATE_NS) == []  # asked again after a while


def test_a_container_docker_does_not_know_is_not_waited_for_again(records: Any) -> None:
    room = Room()
    frame = record(records, A)
    assert room.admit(frame) == []
    unknown = frame_of(ContainerFact(A))
    assert room.admit(unknown) == [unknown, frame]
    assert room.admit(frame, LATE_NS) == [frame]
    assert room.asked == [A]
    assert room.admit(frame, ASK_AGAIN_NS) == []


def test_without_docker_nothing_waits(records: Any) -> None:
    room = Room(answers=False)
    frame = record(records, A)
    assert room.admit(frame) == [frame]
    assert room.admit(record(records, "\0" * 64)) == [record(records, "\0" * 64)]


def test_a_foreign_record_does_not_wait_forever() -> None:
    room = Room()
    frame = Frame("exec", b"\xff" * 200)
    assert room.admit(frame) == []
    assert room.waiting.overdue(WAIT_NS) == [frame]


def test_the_room_is_bounded(records: Any) -> None:
    room = Room()
    out = [f for i in range(MAX_WAITING + 5) for f in room.admit(record(records, f"{i:064x}"))]
    assert len(out) == 5 and len(room.waiting) == MAX_WAITING


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 2 * WAIT_NS)), max_size=30
    )
)  # fmt: skip
def test_every_frame_comes_out_once_and_in_its_containers_order(
    records: Any, steps: list[tuple[str, bool, int]]
) -> None:
    room, now, put, out = Room(), 0, [], []
    for i, (who, is_name, pause) in enumerate(steps):
        now += pause
        out += room.waiting.overdue(now)
        if is_name:
            out += [f for f in room.admit(named(who * 64), now) if f.kind == "exec"]
        else:
            frame = record(records, who * 64, pid=i)
            put.append(frame)
            out += room.admit(frame, now)
    out += room.waiting.overdue(now + WAIT_NS)
    assert sorted(out) == sorted(put)
    for who in (b"a", b"b"):
        assert [f for f in out if who * 64 in f.data] == [f for f in put if who * 64 in f.data]
