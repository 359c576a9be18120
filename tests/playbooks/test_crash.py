"""kill -9 of a real process at each point of a step and of its undo: after the next start exactly one effect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from playbooks import audit
from playbooks.ledger import Ledger, audit_of

PROGRAM = Path(__file__).parent / "crash_program.py"


def play(directory: Path, playbook: str, *arguments: str) -> dict[str, Any] | None:
    """One life of the process; what it saw at its end, or None when it was killed."""
    (directory / "playbook.yml").write_text(playbook.replace("FILE", str(directory / "effect")))
    done = life(directory, *arguments)
    assert done.returncode in (0, -9), done.stderr
    seen: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return seen


def life(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(PROGRAM.parents[2]), str(PROGRAM.parent)])
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(directory), *arguments],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


PLAYBOOK = """\
name: one
match: {rules: [shell]}
steps:
  - {id: touch, uses: probe.touch, with: {file: FILE, die: POINT}, undo: {after: AFTER}}
  - {id: tell, uses: probe.post}
"""


@pytest.mark.parametrize("point", ["plan", "act", "acted", "verify"])
def test_a_step_has_exactly_one_effect(tmp_path: Path, point: str) -> None:
    text = PLAYBOOK.replace("POINT", point).replace("AFTER", "1h")
    assert play(tmp_path, text, "take") is None
    seen = play(tmp_path, text, "take")  # the alert comes again: it was perhaps never acknowledged
    assert seen is not None
    assert (tmp_path / "effect.log").read_text() == "act\n"
    assert [r["state"] for r in seen["runs"]] == ["done"]
    steps = {s["step_id"]: s for s in seen["steps"]}
    assert (steps["touch"]["outcome"], steps["touch"]["verified"]) == ("changed", True)
    assert [u["state"] for u in seen["undos"]] == ["armed"]
    assert seen["sent"] == 1
    assert seen["emitted"] == len(set(seen["emitted_ids"]))
    assert not list(audit.broken(audit_of(tmp_path / "ledger"), "audit"))


@pytest.mark.parametrize("point", ["undo", "undone"])
def test_an_undo_runs_to_its_end_after_a_kill(tmp_path: Path, point: str) -> None:
    text = PLAYBOOK.replace("POINT", point).replace("AFTER", "300ms")
    assert play(tmp_path, text, "take", "undone") is None
    seen = play(tmp_path, text, "undone")
    assert seen is not None
    assert [u["state"] for u in seen["undos"]] == ["done"]
    assert (tmp_path / "effect.log").read_text() == "act\nundo\n"
    assert not (tmp_path / "effect").exists()


def test_an_undo_that_became_due_while_nobody_ran_is_done_at_once(tmp_path: Path) -> None:
    """Killed after it acted: the step's end is unknown, its undo is overdue at the next start."""
    text = PLAYBOOK.replace("POINT", "acted").replace("AFTER", "1ms")
    assert play(tmp_path, text, "take") is None
    seen = play(tmp_path, text, "undone")
    assert seen is not None
    assert (tmp_path / "effect.log").read_text() == "act\nundo\n"
    assert [u["state"] for u in seen["undos"]] == ["done"]
    assert [r["state"] for r in seen["runs"]] == ["done"]


def test_a_step_whose_time_is_over_is_not_begun_again(tmp_path: Path) -> None:
    """Killed before it acted, started again after its undo was due: acting now would only flap."""
    text = PLAYBOOK.replace("POINT", "act").replace("AFTER", "1ms")
    assert play(tmp_path, text, "take") is None
    seen = play(tmp_path, text, "undone")
    assert seen is not None
    assert not (tmp_path / "effect.log").exists()
    steps = {s["step_id"]: s for s in seen["steps"]}
    assert steps["touch"]["outcome"] == "skipped"


def test_a_changed_playbook_ends_its_unfinished_runs_but_takes_them_back(tmp_path: Path) -> None:
    text = PLAYBOOK.replace("POINT", "acted").replace("AFTER", "1s")
    assert play(tmp_path, text, "take") is None
    seen = play(tmp_path, text + "description: another\n", "take", "undone")
    assert seen is not None
    assert [r["state"] for r in seen["runs"]] == ["failed"]
    assert "changed or removed" in seen["runs"][0]["reason"]
    assert (tmp_path / "effect.log").read_text() == "act\nundo\n"


def test_two_processes_cannot_hold_one_ledger(tmp_path: Path) -> None:
    held = Ledger(tmp_path / "ledger")
    text = PLAYBOOK.replace("POINT", "nowhere").replace("AFTER", "1h")
    (tmp_path / "playbook.yml").write_text(text)
    done = life(tmp_path)
    held.close()
    assert done.returncode == 1 and "in use by another Tocsin" in done.stderr
