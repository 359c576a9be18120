from __future__ import annotations

import itertools
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from forwarder.reader import Reader, offset_since
from forwarder.spool import JUMP, Dropped, Spool


def open_spool(path: Path, **options: Any) -> Spool:
    defaults: dict[str, Any] = {"max_bytes": 1 << 20, "segment_bytes": 4096, "boot_id": "boot-1"}
    return Spool(path, **{**defaults, **options})


def read_all(spool: Spool, offset: int = 0, max_records: int = 50) -> dict[int, bytes]:
    """Every readable record from `offset` on; holes are passed over."""
    reader, found = Reader(spool), dict[int, bytes]()
    while offset < spool.next_offset:
        batch = reader.read(offset, max_records, 1 << 20)
        assert batch.end > offset
        found |= {batch.offset + i: line for i, line in enumerate(batch.lines)}
        offset = batch.end
    reader.close()
    return found


def kill(spool: Spool) -> None:
    """Leaves the files as kill -9 would."""
    for writer in [*spool._unsynced, spool._writer]:
        writer.close()


def records(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(first, first + count)]


def test_offsets_count_on_across_segments_and_restarts(tmp_path: Path) -> None:
    given: dict[int, bytes] = {}
    for _ in range(3):
        spool = open_spool(tmp_path)
        for size in (1, 7, 300, 2):
            lines = records(spool.next_offset, size)
            first = spool.append(lines)
            assert first == len(given)
            given |= {first + i: line for i, line in enumerate(lines)}
        assert read_all(spool) == given
        spool.close()
    assert spool.segment_count == 3


def test_an_empty_append_takes_no_offset(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    assert spool.append([]) == spool.append([b"a"]) == 0
    spool.close()


def test_a_tail_torn_at_any_byte_is_cut_and_nothing_before_it(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "whole")
    spool.append(records(0, 3))
    keep = spool.size_bytes
    spool.append(records(3, 2))
    whole = spool.size_bytes
    kill(spool)
    for cut in range(keep, whole + 1):
        shutil.copytree(tmp_path / "whole", tmp_path / "torn")
        os.truncate(tmp_path / "torn" / f"{0:020d}.segment", cut)
        spool = open_spool(tmp_path / "torn")
        count = 5 if cut == whole else 3
        assert spool.next_offset == count
        assert spool.append([b"new"]) == count
        assert read_all(spool) == {i: line for i, line in enumerate([*records(0, count), b"new"])}
        spool.close()
        shutil.rmtree(tmp_path / "torn")


def test_a_power_cut_never_gives_an_offset_twice(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(records(0, 10))
    size = spool.size_bytes
    spool.append(records(10, 10))
    kill(spool)
    os.truncate(tmp_path / f"{0:020d}.segment", size + 5)
    spool = open_spool(tmp_path, boot_id="boot-2")
    assert spool.jumped
    assert spool.append([b"after"]) == 10 + JUMP
    assert spool.missing(5, 11 + JUMP) == 6
    assert read_all(spool) == {i: line for i, line in enumerate(records(0, 10))} | {10 + JUMP: b"after"}
    kill(spool)
    spool = open_spool(tmp_path, boot_id="boot-2")
    assert not spool.jumped and spool.next_offset == 11 + JUMP
    assert spool.missing(5, 11 + JUMP) == 6
    spool.close()
    spool = open_spool(tmp_path, boot_id="boot-3")
    assert not spool.jumped
    spool.close()


def test_a_sink_that_knows_more_than_the_spool_is_never_made_to_skip(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(records(0, 4))
    spool.close()
    spool = open_spool(tmp_path, at_least=9)
    assert spool.jumped and spool.next_offset == 9 + JUMP
    spool.close()


@pytest.mark.parametrize("state", [b"", b"{", b'{"boot": 7}', None])
def test_a_lost_state_file_counts_as_a_power_cut(tmp_path: Path, state: bytes | None) -> None:
    spool = open_spool(tmp_path)
    spool.append(records(0, 4))
    spool.close()
    if state is None:
        (tmp_path / "state.json").unlink()
    else:
        (tmp_path / "state.json").write_bytes(state)
    spool = open_spool(tmp_path)
    assert spool.next_offset == 4 + JUMP
    assert len(read_all(spool)) == 4
    spool.close()


def test_a_bad_checksum_in_the_middle_costs_its_frame_only(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for n in range(0, 500, 5):
        spool.append(records(n, 5))
    spool.close()
    assert spool.segment_count > 2
    path = sorted(tmp_path.glob("*.segment"))[1]
    first, data = int(path.stem), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    spool = open_spool(tmp_path)
    found = read_all(spool)
    missing = sorted(set(range(500)) - set(found))
    assert len(missing) == 5 and missing[0] > first and missing[0] % 5 == 0
    assert all(line == b'{"n":%d}' % n for n, line in found.items())
    spool.close()


def test_a_sealed_segment_cut_short_or_gone_is_a_hole(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for n in range(0, 1000, 5):
        spool.append(records(n, 5))
    paths = sorted(tmp_path.glob("*.segment"))
    os.truncate(paths[1], 10)
    paths[2].unlink()
    found = read_all(spool)
    assert set(found) == set(range(int(paths[1].stem))) | set(range(int(paths[3].stem), 1000))
    spool.close()


def test_the_size_is_bounded_and_what_is_dropped_is_told_exactly(tmp_path: Path) -> None:
    dropped: list[Dropped] = []
    spool = open_spool(tmp_path, max_bytes=20_000, on_drop=dropped.append)
    for n in range(0, 5000, 10):
        spool.append(records(n, 10))
        assert spool.size_bytes <= 20_000
        assert spool.size_bytes == sum(p.stat().st_size for p in tmp_path.glob("*.segment"))
    assert dropped[0].first == 0 and dropped[-1].end == spool.first_offset > 0
    assert all(a.end == b.first for a, b in itertools.pairwise(dropped))
    assert sorted(read_all(spool)) == list(range(spool.first_offset, 5000))
    spool.close()


def test_a_reader_goes_on_after_its_segment_was_dropped(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(records(0, 20))
    reader = Reader(spool)
    assert reader.read(0, 5, 1 << 20).end == 20
    spool.roll()
    spool.append(records(20, 5))
    spool.drop_oldest()
    batch = reader.read(3, 5, 1 << 20)
    assert (batch.offset, batch.lines) == (20, records(20, 5))
    reader.close()
    spool.close()


def test_reading_may_start_inside_a_frame_and_go_back(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(records(0, 20))
    spool.append(records(20, 20))
    reader = Reader(spool)
    for offset in (13, 25, 39, 0, 20, 19):
        batch = reader.read(offset, 1, 1)
        assert batch.offset == offset and batch.lines == records(offset, (20 if offset < 20 else 40) - offset)
    reader.close()
    spool.close()


def test_offset_since_finds_the_oldest_young_record(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=500)
    for n in range(0, 200, 5):
        spool.append(records(n, 5), received_ns=1000 + n)
    for _ in range(2):
        assert offset_since(spool, 0) == 0
        assert offset_since(spool, 1000 + 100) == 100
        assert offset_since(spool, 1000 + 101) == 105
        assert offset_since(spool, 5000) == 200
        spool.close()
        spool = open_spool(tmp_path, segment_bytes=500)
    spool.roll()
    assert offset_since(spool, 1000 + 190) == 190
    spool.close()


def test_waiting_ends_with_the_append(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    woken = threading.Event()

    def wait() -> None:
        spool.wait(lambda: spool.next_offset > 0)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    spool.wake()
    assert not woken.wait(0.05)
    spool.append([b"a"])
    assert woken.wait(5)
    thread.join()
    spool.close()
