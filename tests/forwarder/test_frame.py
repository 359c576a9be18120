from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_mappings.event import MAX_DOCUMENT_BYTES
from forwarder.frame import HEADER_BYTES, MAGIC, MAX_FRAME_BYTES, MAX_RECORDS, Frame, frames, pack, portions

line = st.binary(min_size=1, max_size=40).map(lambda b: b.replace(b"\n", b" "))
batches = st.lists(st.lists(line, min_size=1, max_size=6), min_size=1, max_size=8)


def packed(batch_list: list[list[bytes]]) -> list[bytes]:
    out, offset = [], 0
    for i, lines in enumerate(batch_list):
        out.append(pack(offset, 1000 + i, lines))
        offset += len(lines)
    return out


def read(data: bytes, start: int = 0) -> list[Frame]:
    fd = os.memfd_create("frames")
    try:
        os.write(fd, data)
        return list(frames(fd, start, len(data)))
    finally:
        os.close(fd)


@given(batches)
def test_what_was_packed_is_read(batch_list: list[list[bytes]]) -> None:
    found = read(b"".join(packed(batch_list)))
    assert [f.lines() for f in found] == batch_list
    assert [f.received_ns for f in found] == [1000 + i for i in range(len(batch_list))]
    assert found[-1].end == sum(map(len, batch_list))


@given(batches, st.data())
def test_a_damaged_byte_costs_its_own_frame_and_no_other(batch_list: list[list[bytes]], data: st.DataObject) -> None:
    parts = packed(batch_list)
    hit = data.draw(st.integers(0, len(parts) - 1))
    at = data.draw(st.integers(0, len(parts[hit]) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(parts[hit])
    damaged[at] ^= flip
    found = read(b"".join([*parts[:hit], bytes(damaged), *parts[hit + 1 :]]))
    assert [f.lines() for f in found] == [lines for i, lines in enumerate(batch_list) if i != hit]


@given(batches, st.data())
def test_a_cut_file_gives_the_frames_before_the_cut(batch_list: list[list[bytes]], data: st.DataObject) -> None:
    parts = packed(batch_list)
    whole = b"".join(parts)
    cut = data.draw(st.integers(0, len(whole)))
    found = read(whole[:cut])
    ends = [sum(map(len, parts[: i + 1])) for i in range(len(parts))]
    assert [f.end_position for f in found] == [end for end in ends if end <= cut]


def test_a_frame_forged_inside_a_record_is_not_found() -> None:
    forged = pack(1, 0, [b"forged"]).replace(MAGIC, MAGIC.lstrip(b"\n")).replace(b"\n", b"")
    parts = [pack(0, 0, [b"a" + forged, forged]), pack(2, 0, [b"b"])]
    damaged = b"\0" * HEADER_BYTES + parts[0][HEADER_BYTES:]
    assert [f.lines() for f in read(damaged + parts[1])] == [[b"b"]]


def test_damage_longer_than_any_frame_is_passed_over() -> None:
    tail = pack(7, 0, [b"behind"])
    for size in (1, 7, 8, HEADER_BYTES, MAX_FRAME_BYTES - 1, MAX_FRAME_BYTES, 3 * MAX_FRAME_BYTES + 5):
        assert [f.lines() for f in read(b"\xff" * size + tail)] == [[b"behind"]]


@pytest.mark.parametrize("size", [1, 300, 5000, MAX_DOCUMENT_BYTES])
@pytest.mark.parametrize("count", [0, 1, 2, MAX_RECORDS, MAX_RECORDS + 1, 3 * MAX_RECORDS])
def test_portions_keep_the_order_and_fit_a_frame(size: int, count: int, tmp_path: Path) -> None:
    if size * count > 64 * 1024 * 1024:
        count = 64 * 1024 * 1024 // size
    lines = [b"%d" % i + b"x" * (size - len(str(i))) for i in range(count)]
    runs = list(portions(lines))
    assert [x for run in runs for x in run] == lines
    assert all(0 < len(run) <= MAX_RECORDS for run in runs)
    assert all(len(pack(0, 0, run)) <= MAX_FRAME_BYTES for run in runs)
    path = tmp_path / "frames"
    path.write_bytes(b"".join(pack(0, 0, run) for run in runs))
    with path.open("rb") as file:
        assert [x for f in frames(file.fileno(), 0, path.stat().st_size) for x in f.lines()] == lines
