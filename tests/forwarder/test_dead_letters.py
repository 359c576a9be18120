from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ecs_mappings.event import MAX_DOCUMENT_BYTES
from forwarder.dead_letters import DeadLetters, Letter
from tocsin.errors import RetryLater


class Resent:
    def __init__(self) -> None:
        self.lines: list[tuple[str, bytes]] = []
        self.fail_after = 10**9

    def __call__(self, topic: str, lines: list[bytes]) -> None:
        if len(self.lines) >= self.fail_after:
            raise RetryLater("full")
        self.lines += [(topic, line) for line in lines]


def letters(directory: Path, dropped: list[int] | None = None, max_bytes: int = 1 << 20) -> DeadLetters:
    return DeadLetters(directory, "store", max_bytes, (dropped if dropped is not None else []).append)


def letter(n: int, topic: str = "events") -> Letter:
    return Letter.of(topic, n, f"reason {n}", b'{"n":%d}' % n)


def test_a_letter_tells_where_when_and_why(tmp_path: Path) -> None:
    letters(tmp_path).add([letter(7)])
    kept = msgspec.json.decode((tmp_path / "store.ndjson").read_bytes())
    assert (kept["topic"], kept["offset"], kept["reason"], kept["line"]) == ("events", 7, "reason 7", '{"n":7}')
    assert kept["at"].endswith("Z")


@pytest.mark.parametrize("line", [b"plain", b"\xff\xfe\x00", "häß\u2028".encode(), b'"}\\'])
def test_any_record_comes_back_as_it_was(tmp_path: Path, line: bytes) -> None:
    box, resent = letters(tmp_path), Resent()
    box.add([Letter.of("alerts", 1, "no", line)])
    assert letters(tmp_path).resend(resent) == 1
    assert resent.lines == [("alerts", line)]


def test_letters_survive_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    letters(tmp_path).add([letter(0), letter(1)])
    with (tmp_path / "store.ndjson").open("ab") as file:
        file.write(b'{"at": "20')
    box = letters(tmp_path)
    assert box.kept == 2
    box.add([letter(2)])
    resent = Resent()
    assert box.resend(resent) == 3
    assert [line for _, line in resent.lines] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    assert box.kept == 0 and box.resend(resent) == 0


def test_the_size_is_bounded_and_what_goes_is_counted(tmp_path: Path) -> None:
    dropped: list[int] = []
    box = letters(tmp_path, dropped, max_bytes=4000)
    for n in range(200):
        box.add([letter(n)])
        assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 4000
    assert box.added == 200 and sum(dropped) + box.kept == 200 and dropped
    resent = Resent()
    box.resend(resent)
    assert [line for _, line in resent.lines] == [b'{"n":%d}' % n for n in range(sum(dropped), 200)]


def test_a_resend_that_fails_keeps_the_rest(tmp_path: Path) -> None:
    box, resent = letters(tmp_path), Resent()
    box.add([letter(n) for n in range(500)])
    resent.fail_after = 200
    with pytest.raises(RetryLater):
        box.resend(resent)
    assert box.kept == 500
    box.add([letter(500)])
    again = Resent()
    assert letters(tmp_path).resend(again) == 501
    assert [line for _, line in again.lines] == [b'{"n":%d}' % n for n in range(501)]


def test_a_record_too_long_is_cut_and_never_sent(tmp_path: Path) -> None:
    box, resent = letters(tmp_path), Resent()
    box.add([Letter.of("events", None, "too long", b"x" * (MAX_DOCUMENT_BYTES + 9)), letter(1)])
    assert box.resend(resent) == 1
    assert box.kept == 1
    kept = msgspec.json.decode((tmp_path / "store.ndjson").read_bytes(), type=Letter)
    assert kept.cut_from_bytes == MAX_DOCUMENT_BYTES + 9 and len(kept.line) == MAX_DOCUMENT_BYTES


def test_damaged_letters_are_counted_when_they_go(tmp_path: Path) -> None:
    dropped: list[int] = []
    letters(tmp_path).add([letter(0), letter(1)])
    path = tmp_path / "store.ndjson"
    path.write_bytes(path.read_bytes().replace(b'"offset":1', b'"offset":"'))
    resent = Resent()
    assert letters(tmp_path, dropped).resend(resent) == 1
    assert dropped == [1]


def test_a_full_disk_keeps_the_record_where_it_is(small_disk: Path) -> None:
    box = letters(small_disk / "dead", max_bytes=1 << 30)
    box.add([letter(0)])
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(RetryLater):
        box.add([letter(n) for n in range(1, 500)])
    filler.unlink()
    box.add([letter(1)])
    resent = Resent()
    assert letters(small_disk / "dead").resend(resent) == 2
