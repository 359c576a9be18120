"""The ledger cannot be written for a while: nothing acts without a claim, and everything goes on afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scene import Scene, alert, until

from playbooks.action import Delivery
from playbooks.ledger import Ledger, LedgerUnavailable

TEXT = (
    "name: one\nmatch: {rules: [shell]}\nsteps:\n"
    "  - {id: t, uses: probe.touch, with: {file: FILE, hang_s: 0.2}, undo: {after: UNDO}}\n"
    "  - {id: tell, uses: probe.post}\n"
)
MODULES = ("runner", "undo", "approvals", "outbox")


@contextmanager
def full(ledger: Ledger) -> Iterator[None]:
    """SQLite's own "database or disk is full", at the next page it needs."""
    with ledger._lock:
        pages = ledger._writer.execute("PRAGMA page_count").fetchone()[0]
        ledger._writer.execute(f"PRAGMA max_page_count = {pages}")
    yield
    with ledger._lock:
        ledger._writer.execute("PRAGMA max_page_count = 1000000")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES:
        monkeypatch.setattr(f"playbooks.{module}.LEDGER_WAIT_S", 0.05)


def fill(ledger: Ledger) -> None:
    """Uses up the pages that are already there."""
    with pytest.raises(LedgerUnavailable):
        while True:
            with ledger.writing() as tx:
                tx.audit("padding", text="x" * 300)


def test_alerts_are_put_off_and_taken_later(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")).replace("UNDO", "1h"))
    made = alert(message="x" * 100_000)
    with full(s.ledger):
        with pytest.raises(LedgerUnavailable, match="full"):
            s.take(made)
        assert not s.ledger.runs(1)
    assert s.take(made) == 1
    s.settle()
    assert (tmp_path / "effect.log").read_text() == "act\n"


def test_a_step_that_acted_but_could_not_be_recorded_has_one_effect(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")).replace("UNDO", "1h"))
    s.take(alert())
    until(lambda: s.ledger.undos())  # claimed, and acting for another 0.2 s
    with full(s.ledger):
        fill(s.ledger)
        until(lambda: (tmp_path / "effect.log").exists())
    s.settle()
    run = s.ledger.runs(1)[0]
    assert run.state == "done"
    assert s.steps(run)["t"].outcome == "changed" and s.steps(run)["t"].verified is True
    assert (tmp_path / "effect.log").read_text() == "act\n"


def test_an_undo_and_a_message_go_on_afterwards(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")).replace("UNDO", "700ms"))
    sent: list[str] = []
    blocked = [True]

    def send(delivery: Delivery) -> None:
        until(lambda: not blocked[0])
        sent.append(delivery.id)

    s.send = send
    run = s.run_of(alert())
    with full(s.ledger):
        fill(s.ledger)
        blocked[0] = False
        until(lambda: not (tmp_path / "effect").exists() and sent)
    until(lambda: s.ledger.undos(state="done") and s.ledger.messages("delivered"))
    assert s.ledger.run(run.id).state == "done"  # type: ignore[union-attr]
    assert set(sent) == {s.ledger.messages("delivered")[0].id}
