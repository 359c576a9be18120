"""Steps that wait for a person, over restarts and past deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scene import Scene, alert, until

from playbooks.document import Mode
from tocsin.errors import Rejected

TOUCH = "name: one\nmatch: {rules: [shell]}\nsteps:\n  - {id: t, uses: probe.touch, with: {file: FILE}APPROVE}\n"


def text(tmp_path: Path, approve: str = "") -> str:
    return TOUCH.replace("FILE", str(tmp_path / "effect")).replace("APPROVE", approve and f", approve: {approve}")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("decision", "outcome"), [("approve", "changed"), ("deny", "denied")])
def test_a_person_decides(
    scene: Callable[..., Scene], tmp_path: Path, restart: bool, decision: str, outcome: str
) -> None:
    s = scene(text(tmp_path, "{timeout: 1h}"))
    run = s.run_of(alert())
    assert run.state == "waiting" and not (tmp_path / "effect").exists()
    if restart:
        s.restart()
    asked = s.ledger.approvals(state="pending")[0]
    s.core._approvals.decide(asked.id, decision, "ann")
    s.settle(waiting_is_busy=True)
    step = s.steps(run)["t"]
    assert step.outcome == outcome
    assert (tmp_path / "effect").exists() is (decision == "approve")
    if decision == "deny":
        assert step.reason == "denied by ann"
    with pytest.raises(Rejected, match="decided before"):
        s.core._approvals.decide(asked.id, "approve", "bob")
    assert [e.event.action for e in s.responses(2)] == ["approval_requested", "probe.touch"]


@pytest.mark.parametrize(("on_timeout", "outcome"), [("skip", "skipped"), ("run", "changed"), ("fail", "failed")])
def test_nobody_decides(scene: Callable[..., Scene], tmp_path: Path, on_timeout: str, outcome: str) -> None:
    s = scene(text(tmp_path, f"{{timeout: 100ms, on_timeout: {on_timeout}}}"))
    run = s.run_of(alert())
    s.settle(waiting_is_busy=True)
    assert s.steps(run)["t"].outcome == outcome


def test_a_deadline_that_passed_while_nobody_ran_has_passed(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(text(tmp_path, "{timeout: 300ms, on_timeout: skip}"))
    run = s.run_of(alert())
    s.close()
    time.sleep(0.35)
    s.open()
    s.settle(waiting_is_busy=True)
    assert s.steps(run)["t"].outcome == "skipped"


def test_mode_approve_asks_before_every_change(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(text(tmp_path) + "  - {id: tell, uses: probe.post}\n", ceiling=Mode.APPROVE)
    run = s.run_of(alert())
    assert run.state == "waiting"
    s.core._approvals.decide(s.ledger.approvals(state="pending")[0].id, "approve", "ann")
    s.settle(waiting_is_busy=True)
    assert {k: v.outcome for k, v in s.steps(run).items()} == {"t": "changed", "tell": "changed"}


def test_what_is_approved_is_looked_at_again(scene: Callable[..., Scene], tmp_path: Path) -> None:
    """The guard's answer of an hour ago is worth nothing."""
    s = scene(text(tmp_path, "{timeout: 1h}"))
    run = s.run_of(alert())
    s.core._switch.halt("ann")
    s.core._approvals.decide(s.ledger.approvals(state="pending")[0].id, "approve", "bob")
    s.settle(waiting_is_busy=True)
    assert s.steps(run)["t"].outcome == "denied"


def test_nothing_to_do_asks_nobody(scene: Callable[..., Scene], tmp_path: Path) -> None:
    (tmp_path / "effect").touch()
    s = scene(text(tmp_path, "{timeout: 1h}"))
    assert s.run_of(alert()).state == "done"
    assert not s.ledger.approvals()


def test_wrong_decisions_are_refused(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(text(tmp_path, "{timeout: 1h}"))
    s.run_of(alert())
    id = s.ledger.approvals()[0].id
    for wrong in (("nothing", "approve"), (id, "maybe")):
        with pytest.raises(Rejected):
            s.core._approvals.decide(*wrong, "ann")
    until(lambda: s.ledger.approvals(state="pending"))


def test_what_was_approved_after_everything_was_disabled_does_nothing(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    s = scene(text(tmp_path, "{timeout: 1h}"))
    s.take(alert())
    until(lambda: s.ledger.approvals(state="pending"))
    s.ceiling = Mode.DISABLED
    s.restart()
    s.core._approvals.decide(s.ledger.approvals()[0].id, "approve", "ann")
    s.settle()
    run = s.ledger.runs(1)[0]
    assert (run.state, run.reason) == ("failed", "playbooks were disabled while it ran")
    assert not (tmp_path / "effect").exists()
