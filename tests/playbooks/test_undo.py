"""Taking steps back: in time, on demand, late, while it fails, and not while everything is halted."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scene import CONTAINER, Scene, alert, until

from ecs_mappings.event import Rule
from playbooks.daemon import Attachment
from tocsin.errors import RetryLater

TEXT = "name: one\nmatch: {rules: [shell]}\nsteps:\n  - {id: t, uses: probe.touch, with: {file: FILE}UNDO}\n"


def text(tmp_path: Path, undo: str = "") -> str:
    return TEXT.replace("FILE", str(tmp_path / "effect")).replace("UNDO", undo)


def test_it_is_taken_back_in_time(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(text(tmp_path, ", undo: {after: 300ms}"))
    run = s.run_of(alert())
    assert (tmp_path / "effect").exists()
    until(lambda: s.ledger.undos(state="done"))
    assert not (tmp_path / "effect").exists()
    event = s.responses(2)[1]
    assert event.tocsin.playbook.undo_of == "t" and event.tocsin.playbook.verified is True
    assert event.tocsin.playbook.run_id == run.id


def test_without_a_time_it_is_taken_back_only_when_a_person_asks(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(text(tmp_path))
    run = s.run_of(alert())
    assert s.ledger.undos()[0].due_ns is None
    assert [u.state for u in s.core._undoer.now(run.id, "ann")] == ["done"]
    assert not (tmp_path / "effect").exists()
    assert s.core._undoer.now(run.id, "ann") == []


def test_what_somebody_put_back_before_is_left_alone(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(text(tmp_path, ", undo: {after: 200ms}"))
    s.run_of(alert())
    (tmp_path / "effect").unlink()
    until(lambda: s.ledger.undos(state="done"))
    assert "gone already" in s.ledger.undos()[0].reason


def test_a_failing_undo_goes_on_trying(
    scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playbooks.undo.FIRST_WAIT_S", 0.01)
    s = scene(text(tmp_path, ", undo: {after: 50ms}"))
    action = s.made[0].steps[0].action
    undo, failures = action.undo, iter(range(3))

    def sometimes(*arguments: object) -> object:
        if next(failures, None) is not None:
            raise RetryLater("the daemon is away")
        return undo(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(type(action), "undo", lambda _, *arguments: sometimes(*arguments))
    s.run_of(alert())
    until(lambda: s.ledger.undos(state="done"))
    assert s.ledger.undos()[0].attempts == 4


def test_after_a_day_it_is_left_to_a_person(
    scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playbooks.undo.GIVE_UP_S", 0)
    s = scene(text(tmp_path, ", undo: {after: 50ms}"))
    action = s.made[0].steps[0].action
    with monkeypatch.context() as broken:
        broken.setattr(type(action), "undo", lambda *_: 1 / 0)
        run = s.run_of(alert())
        until(lambda: s.ledger.undos(state="failed"))
    assert "ZeroDivisionError" in s.ledger.undos()[0].reason
    assert [u.state for u in s.core._undoer.now(run.id, "ann")] == ["done"]


def test_halted_it_waits_and_then_runs_at_once(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(text(tmp_path, ", undo: {after: 100ms}"))
    s.run_of(alert())
    s.core._switch.halt("ann")
    time.sleep(0.2)
    assert (tmp_path / "effect").exists() and s.ledger.undos(state="armed")
    s.restart()
    time.sleep(0.1)
    assert (tmp_path / "effect").exists()
    s.core._switch.resume("ann")
    s.core._undoer.release()
    until(lambda: s.ledger.undos(state="done"))


def test_it_waits_for_a_step_that_is_still_acting(scene: Callable[..., Scene], tmp_path: Path) -> None:
    """Taken back before it acted, it would act for good."""
    s = scene(
        text(tmp_path, ", undo: {after: 50ms}").replace("effect}", "effect, hang_s: 0.5}"),
    )
    s.run_of(alert())
    until(lambda: s.ledger.undos(state="done"))
    assert (tmp_path / "effect.log").read_text() == "act\nundo\n"


def test_a_step_that_was_done_again_is_left_to_the_later_undo(scene: Callable[..., Scene]) -> None:
    s = scene(
        "name: one\nmatch: {rules: [shell]}\nsteps:\n  - {id: freeze, uses: docker.pause, undo: {after: 800ms}}\n"
    )
    first = s.run_of(alert())
    s.daemon.unpause(CONTAINER)  # somebody thaws it
    time.sleep(0.4)
    second = s.run_of(alert())
    until(lambda: s.ledger.undo(first.id, "freeze").state == "done")  # type: ignore[union-attr]
    assert s.daemon.inspect(CONTAINER).paused, "the first undo must not end the second freeze"
    assert second.id in s.ledger.undo(first.id, "freeze").reason  # type: ignore[union-attr]
    until(lambda: not s.daemon.inspect(CONTAINER).paused)


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), RuntimeError("a defect")])
def test_no_error_makes_it_forgotten(
    scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("playbooks.undo.LEDGER_WAIT_S", 0.05)
    monkeypatch.setattr("playbooks.undo.LONGEST_WAIT_S", 0.05)
    s = scene(text(tmp_path, ", undo: {after: 300ms}"))
    run = s.run_of(alert())
    failed = threading.Event()

    def broken(*_: object) -> list[object]:
        failed.set()
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("playbooks.ledger._select", broken)
        assert failed.wait(10)
    until(lambda: s.ledger.undo(run.id, "t").state == "done")  # type: ignore[union-attr]
    assert not (tmp_path / "effect").exists()


CUT = "name: NAME\nmatch: {rules: [NAME]}\nsteps:\n  - {id: cut, uses: docker.disconnect, undo: {after: SPAN}WITH}\n"


def cut(name: str, span: str, networks: str = "") -> str:
    given = f", with: {{networks: [{networks}]}}" if networks else ""
    return CUT.replace("NAME", name).replace("SPAN", span).replace("WITH", given)


def test_a_mild_playbook_does_not_end_the_containment_of_a_strict_one(scene: Callable[..., Scene]) -> None:
    """An attacker could set the mild one off first."""
    s = scene(cut("mild", "300ms"), cut("strict", "900ms"))
    mild = s.run_of(alert(rule=Rule(id="mild")))
    strict = s.run_of(alert(rule=Rule(id="strict")))
    assert s.steps(strict)["cut"].outcome == "unchanged"
    time.sleep(0.5)
    assert not s.daemon.inspect(CONTAINER).networks
    s.restart()
    until(lambda: s.daemon.inspect(CONTAINER).networks)
    put_off = [r for r in s.ledger.audit_rows() if r.kind == "undo_put_off"]
    assert len(put_off) == 1 and strict.id in put_off[0].body and mild.id in put_off[0].body


def test_what_a_strict_playbook_added_to_is_held_as_long(scene: Callable[..., Scene]) -> None:
    s = scene(cut("mild", "300ms", "bridge"), cut("strict", "900ms"))
    s.daemon.networks["d" * 64] = "back"
    s.daemon.connect(CONTAINER, Attachment("d" * 64, "back", {}))
    s.run_of(alert(rule=Rule(id="mild")))
    assert s.steps(s.run_of(alert(rule=Rule(id="strict"))))["cut"].outcome == "changed"
    time.sleep(0.5)
    assert not s.daemon.inspect(CONTAINER).networks
    until(lambda: s.daemon.inspect(CONTAINER).networks.keys() == {"bridge", "back"})


def test_a_playbook_that_must_ask_first_puts_nothing_off(scene: Callable[..., Scene]) -> None:
    s = scene(cut("mild", "300ms"), "mode: dry-run\n" + cut("strict", "1h"), "mode: approve\n" + cut("careful", "1h"))
    s.run_of(alert(rule=Rule(id="mild")))
    s.run_of(alert(rule=Rule(id="strict")))
    s.run_of(alert(rule=Rule(id="careful")))
    until(lambda: s.daemon.inspect(CONTAINER).networks)
