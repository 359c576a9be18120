from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from playbooks import evidence
from playbooks.action import Outcome, load
from playbooks.daemon import DaemonTimeout, Refused
from playbooks.daemon_fake import FakeDaemon
from tocsin.errors import RetryLater, TocsinError

collect = load("docker.collect")
ALL = collect.parameters()


def taken(c, p=ALL):
    plan = collect.plan(c, p)
    assert plan.change
    return collect.act(c, p, plan)


@pytest.mark.parametrize("paused", [False, True])
def test_keeps_every_part_with_its_hash(world, call, paused: bool) -> None:
    c = call(world.daemon, world.run())
    if paused:
        world.daemon.pause(c.container_id)
    result = taken(c)
    assert result.outcome is Outcome.CHANGED
    assert (result.data["missing"], result.data["cut"]) == ({}, [])
    target = c.evidence_dir / "s1"
    assert collect.verify(c, ALL, None)
    assert sorted(p.name for p in target.iterdir()) == [
        "diff.json", "events.ndjson", "inspect.json", "logs.txt", "manifest.json", "top.json",
    ]  # fmt: skip
    assert {p.stat().st_mode & 0o777 for p in target.iterdir()} == {0o600}
    assert (target.stat().st_mode & 0o777, target.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    assert b"line 199" in (target / "logs.txt").read_bytes()
    assert json.loads((target / "manifest.json").read_text())["about"]["container"] == c.container_id


def test_values_of_the_environment_never_reach_the_disk(world, call) -> None:
    c = call(world.daemon, world.run())
    taken(c)
    document = json.loads((c.evidence_dir / "s1" / "inspect.json").read_text())
    assert "TOKEN=<redacted>" in document["Config"]["Env"]
    assert document["Config"]["Labels"]["tocsin.test"] == "actions"
    assert not any(b"hunter2" in path.read_bytes() for path in c.evidence_dir.rglob("*") if path.is_file())


def test_only_what_was_asked_for(world, call) -> None:
    c = call(world.daemon, world.run())
    assert taken(c, collect.parameters(include=["logs", "top"])).data["parts"] == ["top.json", "logs.txt"]


def test_a_container_that_is_gone_is_unchanged(world, call) -> None:
    c = call(world.daemon, world.run())
    plan = collect.plan(c, ALL)
    world.remove(c.container_id)
    assert not collect.plan(c, ALL).change
    assert collect.act(c, ALL, plan).outcome is Outcome.UNCHANGED
    assert not c.evidence_dir.exists()


def test_a_stopped_container_has_no_processes_and_all_else(world, call) -> None:
    c = call(world.daemon, world.run())
    world.daemon.stop(c.container_id, 0)
    result = taken(c)
    assert result.outcome is Outcome.CHANGED
    assert list(result.data["missing"]) == ["top.json"] and "not running" in result.data["missing"]["top.json"]
    assert collect.verify(c, ALL, None)


def test_a_size_bound_cuts_and_says_so(call) -> None:
    daemon = FakeDaemon()
    many = tuple(f"/tmp/{'x' * 90}{i}" for i in range(1000))
    c = call(daemon, daemon.add(logs=("y" * 100,) * 1000, changes=many))
    p = collect.parameters(max_size="32KiB")
    result = taken(c, p)
    assert result.data["cut"] == ["diff.json", "logs.txt"]
    assert result.data["size_bytes"] <= 32 * 1024
    assert result.data["size_bytes"] > 28 * 1024
    assert collect.verify(c, p, None)


def test_parts_that_fail_are_in_the_manifest(call) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add())
    daemon.fail("top", Refused("ps is missing"))
    daemon.fail("changes", DaemonTimeout("took too long"))
    assert taken(c).data["missing"] == {"top.json": "ps is missing", "diff.json": "took too long"}


def test_nothing_at_all_is_a_failure_and_a_daemon_away_is_later(call) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add())
    p = collect.parameters(include=["top"])
    plan = collect.plan(c, p)
    daemon.fail("top", Refused("ps is missing"))
    with pytest.raises(TocsinError, match="ps is missing"):
        collect.act(c, p, plan)
    daemon.fail("top", RetryLater("away"))
    with pytest.raises(RetryLater):
        collect.act(c, p, plan)
    assert not c.evidence_dir.exists()


def test_an_interrupted_attempt_leaves_nothing_that_looks_whole(call, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add())
    with monkeypatch.context() as m:
        m.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(TocsinError, match="No space left"):
            taken(c)
    assert not (c.evidence_dir / "s1").exists()
    assert taken(c).outcome is Outcome.CHANGED
    assert [path.name for path in c.evidence_dir.iterdir()] == ["s1"]
    assert not collect.plan(c, ALL).change
    assert collect.act(c, ALL, None).outcome is Outcome.UNCHANGED


def test_what_is_tampered_with_is_found(call) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add())
    taken(c)
    target = c.evidence_dir / "s1"
    (target / "top.json").write_text("{}")
    (target / "logs.txt").unlink()
    (target / "more.txt").write_text("x")
    assert evidence.check(target) == ["logs.txt is missing", "more.txt was added", "top.json was changed"]
    assert not collect.verify(c, ALL, None)
    (target / "manifest.json").write_text("{")
    assert len(evidence.check(target)) == 1


def test_the_oldest_evidence_makes_room_and_it_is_said(call, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    daemon = FakeDaemon()
    id = daemon.add()
    root = tmp_path / "evidence"
    for age in (3, 2, 1):
        old = root / f"old{age}" / "s1"
        old.mkdir(parents=True)
        (old / "logs.txt").write_bytes(b"x" * 10_000)
        stamp = time.time() - age * 1000
        os.utime(old.parent, (stamp, stamp))
    with caplog.at_level(logging.WARNING):
        result = taken(call(daemon, id, evidence_limit_bytes=15_000))
    assert result.data["removed_runs"] == ["old3", "old2"]
    assert "old3" in caplog.text
    assert sorted(p.name for p in root.iterdir()) == ["old1", "r1"]


@given(st.text(max_size=30))
def test_no_step_name_leads_out_of_the_directory(name: str) -> None:
    from playbooks.actions.docker_collect import _target

    class OneCall:
        step_id = name
        evidence_dir = Path("/evidence/r1")

    try:
        target = _target(OneCall())  # type: ignore[arg-type]
    except TocsinError:
        return
    assert Path(os.path.normpath(target)).parent == Path("/evidence/r1")


@pytest.mark.parametrize(
    "wrong", [{"max_size": "20"}, {"max_size": 20}, {"include": []}, {"include": ["env"]}, {"x": 1}]
)
def test_odd_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        collect.parameters(**wrong)


def test_one_part_cannot_take_the_time_of_all(call, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = FakeDaemon()
    c = call(daemon, daemon.add(logs=("hello",)), deadline=time.monotonic() + 0.6)

    def drips(id: str, max_bytes: int, deadline: float) -> None:
        time.sleep(max(0.0, deadline - time.monotonic()))
        raise DaemonTimeout("took too long")

    monkeypatch.setattr(daemon, "changes", drips)
    result = taken(c)
    assert result.data["missing"] == {"diff.json": "took too long"}
    assert "logs.txt" in result.data["parts"] and time.monotonic() < c.deadline
