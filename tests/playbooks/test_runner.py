"""A run from alert to end: outcomes, order, what follows trouble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scene import CONTAINER, Scene, alert, until

from playbooks.document import Mode

BASE = "name: base\nmatch: {rules: [shell]}\n"


def playbook(tmp_path: Path, steps: str, top: str = BASE) -> str:
    return top + steps.replace("FILE", str(tmp_path / "effect"))


def test_a_step_acts_once_and_is_verified(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(playbook(tmp_path, "steps:\n  - {id: one, uses: probe.touch, with: {file: FILE}}\n"))
    run = s.run_of(alert())
    step = s.steps(run)["one"]
    assert (run.state, step.outcome, step.verified, step.attempts) == ("done", "changed", True, 1)
    assert (tmp_path / "effect.log").read_text() == "act\n"
    event = s.responses(1)[0]
    assert event.event.action == "probe.touch" and event.event.dataset == "tocsin.response"
    assert event.container.id == CONTAINER
    latency = event.tocsin.latency
    assert 0 <= latency.decided_ms <= latency.acted_ms <= latency.verified_ms < 5000


def test_already_so_is_unchanged_and_its_undo_is_not_armed(scene: Callable[..., Scene], tmp_path: Path) -> None:
    (tmp_path / "effect").touch()
    s = scene(playbook(tmp_path, "steps:\n  - {id: one, uses: probe.touch, with: {file: FILE}, undo: {after: 1h}}\n"))
    run = s.run_of(alert())
    assert s.steps(run)["one"].outcome == "unchanged"
    assert not s.ledger.undos()


def test_a_second_look_that_shows_nothing_is_a_failure(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(playbook(tmp_path, "steps:\n  - {id: one, uses: probe.touch, with: {file: FILE, lie: true}}\n"))
    run = s.run_of(alert())
    step = s.steps(run)["one"]
    assert (run.state, step.outcome, step.verified) == ("failed", "failed", False)
    assert "second look" in step.reason


def test_retry_tries_again_only_as_often_as_it_says(scene: Callable[..., Scene], tmp_path: Path) -> None:
    steps = (
        "steps:\n  - {id: one, uses: probe.touch, with: {file: FILE, fail: 2}, retry: {attempts: 3, backoff: 1ms}}\n"
    )
    s = scene(playbook(tmp_path, steps))
    run = s.run_of(alert())
    assert (s.steps(run)["one"].outcome, s.steps(run)["one"].attempts) == ("changed", 3)
    s.close()
    (tmp_path / "effect").unlink()
    s.texts = (playbook(tmp_path, steps.replace("fail: 2", "fail: 3")),)
    s.open()
    run = s.run_of(alert())
    assert (run.state, s.steps(run)["one"].outcome, s.steps(run)["one"].attempts) == ("failed", "failed", 3)


def test_a_hanging_action_is_left_behind_and_its_undo_stays_armed(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(
        playbook(
            tmp_path,
            "steps:\n"
            "  - {id: stuck, uses: probe.touch, with: {file: FILE, hang_s: 3}, timeout: 100ms, on_error: continue,\n"
            "     undo: {after: 1h}}\n"
            "  - {id: after, uses: probe.post}\n",
        )
    )
    run = s.run_of(alert())
    assert run.state == "done"
    assert s.steps(run)["stuck"].outcome == "timeout"
    assert s.steps(run)["after"].outcome == "changed"
    assert [u.state for u in s.ledger.undos()] == ["armed"]
    assert s.core.status()["hanging_calls"] == 1
    until(lambda: s.core.status()["hanging_calls"] == 0)


@pytest.mark.parametrize(
    ("on_error", "state", "after", "told"),
    [("fail", "failed", None, True), ("continue", "done", "changed", False), ("skip_rest", "done", None, False)],
)
def test_on_error(
    scene: Callable[..., Scene], tmp_path: Path, on_error: str, state: str, after: str | None, told: bool
) -> None:
    s = scene(
        playbook(
            tmp_path,
            "steps:\n"
            f"  - {{id: bad, uses: probe.touch, with: {{file: FILE, fail: 9}}, on_error: {on_error}}}\n"
            "  - {id: after, uses: probe.post}\n"
            "on_failure:\n"
            "  - {uses: probe.post, with: {text: 'failed at {{ error.step }}: {{ error.message }}'}}\n",
        )
    )
    run = s.run_of(alert())
    steps = s.steps(run)
    assert run.state == state
    assert (steps["after"].outcome if "after" in steps else None) == after
    assert ("on_failure_1" in steps) is told
    expected = [b"failed at bad: not yet"] * told + [b"hello"] * (after is not None)
    until(lambda: len(s.sent) == len(expected))
    assert [d.body for d in s.sent] == expected


def test_if_looks_at_earlier_steps_and_fails_closed(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(
        playbook(
            tmp_path,
            "steps:\n"
            "  - {id: one, uses: probe.touch, with: {file: FILE}}\n"
            "  - {id: second, uses: probe.post, if: steps.one.changed and steps.one.data.attempt == 1}\n"
            "  - {id: third, uses: probe.post, if: not steps.one.changed}\n"
            "  - {id: absent, uses: probe.post, if: process.interactive}\n",
        )
    )
    steps = s.steps(s.run_of(alert()))
    assert [steps[i].outcome for i in ("second", "third", "absent")] == ["changed", "skipped", "skipped"]
    assert "absent" in steps["absent"].reason


def test_templates_give_values_and_what_is_absent_fails_the_step(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(
        playbook(
            tmp_path,
            "steps:\n"
            "  - {id: a, uses: probe.post, with: {text: '{{ process.pid }}', tags: '{{ process.args }}'}}\n"
            "  - {id: b, uses: probe.post, with: {text: '{{ process.name }} in {{ container.name }}'}}\n"
            "  - {id: c, uses: probe.post, with: {text: '{{ user.name }}'}}\n",
        )
    )
    steps = s.steps(s.run_of(alert()))
    assert steps["a"].outcome == "changed" and steps["a"].data == {"tags": ["sh", "-i"]}
    assert steps["b"].outcome == "changed"
    assert steps["c"].outcome == "failed" and "user.name is absent" in steps["c"].reason
    until(lambda: len(s.sent) == 2)
    assert [d.body for d in s.sent] == [b"7", b"sh in web"]


def test_dry_run_walks_the_whole_way_and_changes_nothing(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene(
        playbook(
            tmp_path,
            "steps:\n"
            "  - {id: one, uses: probe.touch, with: {file: FILE}, undo: {after: 1s}}\n"
            "  - {id: two, uses: probe.post, if: steps.one.changed}\n",
        ),
        ceiling=Mode.DRY_RUN,
    )
    run = s.run_of(alert())
    steps = s.steps(run)
    assert [(x.outcome, x.would_change) for x in steps.values()] == [("skipped", True)] * 2
    assert run.state == "done" and not (tmp_path / "effect").exists()
    assert not s.ledger.undos() and not s.ledger.messages("pending")
    assert s.responses(2)[0].tocsin.playbook.would_change is True


def test_an_error_inside_the_machine_ends_the_run_and_says_so(
    scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = scene(playbook(tmp_path, "steps:\n  - {id: one, uses: probe.post}\n"))

    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("playbooks.steps.Steps.run", broken)
    run = s.run_of(alert())
    assert (run.state, run.reason) == ("failed", "RuntimeError: out of order")
