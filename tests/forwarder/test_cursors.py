from __future__ import annotations

from pathlib import Path

import pytest

from forwarder.cursors import CursorFile


def test_cursors_come_back_and_absent_sinks_keep_theirs(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "cursors.json")
    assert file.last() == {}
    file.save(lambda: {"events": {"store": 5, "correlator": 7}})
    CursorFile(tmp_path / "cursors.json").save(lambda: {"events": {"store": 6}, "alerts": {"store": 1}})
    expected = {"events": {"store": 6, "correlator": 7}, "alerts": {"store": 1}}
    assert CursorFile(tmp_path / "cursors.json").last() == expected


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    path = tmp_path / "cursors.json"
    file = CursorFile(path)
    file.save(lambda: {"events": {"store": 5}})
    before = path.stat().st_ino
    file.save(lambda: {"events": {"store": 5}})
    assert path.stat().st_ino == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"events": {"store": "x"}}'])
def test_a_damaged_file_starts_every_sink_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cursors.json"
    path.write_bytes(content)
    assert CursorFile(path).last() == {}
