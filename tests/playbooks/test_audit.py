"""The chain shows every change; the file follows the ledger and mends its torn tail."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene import Scene, alert, until

from playbooks import audit
from playbooks.audit import AuditFile
from playbooks.ledger import FILE, audit_of
from playbooks.records import AuditRow
from tocsin.errors import TocsinError

POST = "name: one\nmatch: {rules: [shell]}\nsteps: [{id: tell, uses: probe.post}]\n"


def chain(length: int) -> list[AuditRow]:
    rows: list[AuditRow] = []
    for n in range(length):
        rows.append(audit.row(rows[-1] if rows else None, n, "kind", {"n": n}))
    return rows


def problems(rows: list[AuditRow]) -> list[int]:
    return [p.line for p in audit.broken(rows, "audit")]


@given(st.integers(1, 8), st.data())
def test_every_change_is_seen(length: int, data: st.DataObject) -> None:
    rows = chain(length)
    assert not problems(rows)
    at = data.draw(st.integers(0, length - 1))
    field, value = data.draw(
        st.sampled_from([("body", "{}"), ("kind", "x"), ("at_ns", 99), ("hash", "0" * 64), ("previous", "1" * 64)])
    )
    changed = [*rows[:at], msgspec.structs.replace(rows[at], **{field: value}), *rows[at + 1 :]]
    assert problems(changed)
    if at < length - 1:
        assert problems(rows[:at] + rows[at + 1 :])


def test_what_happened_is_in_ledger_and_file(scene: Callable[..., Scene]) -> None:
    s = scene(POST)
    s.run_of(alert())
    until(lambda: s.ledger.messages("delivered"))
    s.core._switch.halt("ann")
    s.close()
    directory = s.directory / "ledger"
    rows = audit_of(directory)
    kinds = [r.kind for r in rows]
    assert kinds[0] == "run_running" and {"step_claimed", "step_ended", "run_ended", "halted", "delivered"} <= set(
        kinds
    )
    assert not problems(rows)
    assert [r.hash for r in audit.read(directory / "audit.log")] == [r.hash for r in rows]
    assert not list(audit.differences(rows, audit.read(directory / "audit.log"), "audit.log"))
    s.open()
    s.run_of(alert())
    s.close()
    assert not problems(audit_of(directory))
    s.open()


def test_the_ledger_refuses_to_change_a_row(scene: Callable[..., Scene]) -> None:
    s = scene(POST)
    s.run_of(alert())
    other = sqlite3.connect(s.directory / "ledger" / FILE)
    for statement in ("UPDATE audit SET kind = 'x'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            other.execute(statement)
    other.close()


def test_a_changed_file_is_seen(tmp_path: Path) -> None:
    rows, file = chain(3), tmp_path / "audit.log"
    AuditFile(file).append(rows)
    file.write_bytes(file.read_bytes().replace(b'"kind"', b'"kinx"', 2).replace(b'"kinx":', b'"kind":'))
    assert list(audit.differences(rows, audit.read(file), file.name)) or problems(list(audit.read(file)))


@pytest.mark.parametrize("torn", [b"", b'{"seq": 3, "at', b"\x00\x00"])
def test_a_torn_tail_is_mended_and_written_again(tmp_path: Path, torn: bytes) -> None:
    rows, file = chain(4), tmp_path / "audit.log"
    AuditFile(file).append(rows[:2])
    with file.open("ab") as out:
        out.write(torn)
    again = AuditFile(file)
    assert again.last_seq == 2
    again.append(rows)
    assert [r.seq for r in audit.read(file)] == [1, 2, 3, 4]


def test_a_full_disk_leaves_no_half_row(tmp_path: Path) -> None:
    path, rows = tmp_path / "audit.log", chain(3)
    file = AuditFile(path)
    file.append(rows[:1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="bytes were written"):
            file.append(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(audit.read(path)) == rows[:1]
    file.append(rows)
    assert list(audit.read(path)) == rows


@pytest.mark.parametrize("line", [b"nothing\n", b"{}\n", b"\xff\n"])
def test_a_line_that_is_no_row_is_told_with_its_place(tmp_path: Path, line: bytes) -> None:
    path, rows = tmp_path / "audit.log", chain(2)
    AuditFile(path).append(rows)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(TocsinError, match=r"audit\.log:3: was changed"):
        list(audit.read(path))


def test_a_damaged_file_is_kept_and_written_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, rows = tmp_path / "audit.log", chain(3)
    path.write_bytes(b"\0" * 300 + b"\n")
    file = AuditFile(path)
    file.append(rows)
    assert list(audit.read(path)) == rows
    (aside,) = tmp_path.glob("audit.log.damaged-*")
    assert aside.stat().st_size == 301 and aside.name in caplog.text
