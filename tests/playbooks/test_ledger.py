"""One commit is all or nothing, and the ledger tells which formats it knows."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from playbooks.ledger import FILE, Ledger
from playbooks.records import Run, StepRecord, UndoRecord, run_id
from tocsin.errors import TocsinError


def run(id: str = "r1", **changes: object) -> Run:
    values: dict[str, object] = {
        "id": id, "alert_id": "a", "alert": b"{}", "playbook": "p", "revision": "1", "mode": "enforce",
        "state": "running", "reason": "", "rule": None, "container_id": "c", "container_name": None, "key": None,
        "tripped": False, "created_ns": 1,
    }  # fmt: skip
    return Run(**values | changes)  # type: ignore[arg-type]


def step(run: str = "r1", id: str = "s", **changes: object) -> StepRecord:
    values: dict[str, object] = {
        "run_id": run, "step_id": id, "uses": "x.y", "claim_id": run + id, "state": "acting", "begun_ns": 1,
        "data": {"a": [1, "ü"]}, "verified": False,
    }  # fmt: skip
    return StepRecord(**values | changes)  # type: ignore[arg-type]


def undo(run: str = "r1", **changes: object) -> UndoRecord:
    values: dict[str, object] = {
        "run_id": run, "step_id": "s", "uses": "x.y", "parameters": {"a": 1}, "saved": {}, "container_id": "c",
        "due_ns": None,
    }  # fmt: skip
    return UndoRecord(**values | changes)  # type: ignore[arg-type]


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.writing() as tx:
        assert tx.add(run()) and not tx.add(run(reason="another"))
        tx.put(step())
        tx.add(undo())
    assert ledger.run("r1") == run()
    assert ledger.steps("r1") == [step()]
    assert ledger.undos() == [undo()]
    ledger.close()


def test_a_commit_that_fails_leaves_nothing_and_the_chain_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.writing() as tx:
        tx.audit("first")
    with pytest.raises(ZeroDivisionError), ledger.writing() as tx:
        tx.add(run())
        tx.audit("lost")
        _ = 1 / 0
    with ledger.writing() as tx:
        tx.audit("second")
    assert ledger.runs(10) == []
    assert [(r.seq, r.kind) for r in ledger.audit_rows()] == [(1, "first"), (2, "second")]
    ledger.close()


def test_what_was_emitted_goes_with_the_next_commit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.writing() as tx:
        tx.respond(b"one")
        tx.respond(b"two")
    (first, _), _ = ledger.responses(10)
    ledger.emitted(first)
    assert [line for _, line in ledger.responses(10)] == [b"two"]
    with ledger.writing():
        pass
    ledger.close()
    ledger = Ledger(tmp_path)
    assert [line for _, line in ledger.responses(10)] == [b"two"]
    assert ledger.counts()["responses"] == {"waiting": 1, "refused": 0}
    ledger.close()


def test_old_runs_go_unless_something_is_still_to_be_taken_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.writing() as tx:
        for name, ended in (("old", 5), ("new", 50), ("armed", 5), ("open", None)):
            tx.add(run(name, ended_ns=ended))
            tx.put(step(name))
            tx.add(undo(name, state="armed" if name == "armed" else "done"))
    with ledger.writing() as tx:
        assert tx.forget(10) == 1
    assert {r.id for r in ledger.runs(10)} == {"new", "armed", "open"}
    assert not ledger.steps("old") and ledger.steps("armed")
    ledger.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(TocsinError, match="newer Tocsin"):
        Ledger(tmp_path)


def test_one_process_holds_it(tmp_path: Path) -> None:
    held = Ledger(tmp_path)
    with pytest.raises(TocsinError, match="in use"):
        Ledger(tmp_path)
    held.close()
    Ledger(tmp_path).close()


def test_ids_do_not_run_into_each_other() -> None:
    assert run_id("ab", "c") != run_id("a", "bc")


def test_a_commit_is_on_disk_and_quick(tmp_path: Path) -> None:
    """Full sync, or the promise is empty; and the live path pays it twice a step."""
    ledger = Ledger(tmp_path)
    assert ledger._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    took = []
    for n in range(50):
        begun = time.perf_counter()
        with ledger.writing() as tx:
            tx.put(step(id=f"s{n}"))
            tx.audit("step", n=n)
        took.append(time.perf_counter() - begun)
    assert sorted(took)[25] < 0.05
    ledger.close()


def test_a_damaged_one_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 500)
    for _ in range(2):  # the lock was given back
        with pytest.raises(TocsinError, match=r"ledger\.db cannot be used: .*keep it elsewhere"):
            Ledger(tmp_path)
