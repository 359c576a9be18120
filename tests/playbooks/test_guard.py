"""The last look: the right container, in the same life, unprotected, and nobody said stop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scene import CONTAINER, Scene, alert

from ecs_mappings.event import Container
from playbooks.daemon_fake import FakeDaemon
from playbooks.guard import Denied, Guard, own_container_ids

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def check(guard: Guard | None = None, protect: tuple[str, ...] = (), **state: Any) -> None:
    daemon = FakeDaemon()
    id = daemon.add(**{"started_at": NOW - timedelta(hours=1)} | state)
    (guard or Guard()).check(alert(timestamp=NOW), daemon.inspect(id), protect)


@pytest.mark.parametrize(
    ("started", "finished"),
    [
        (NOW - timedelta(hours=1), None),
        (NOW, None),
        (NOW + timedelta(seconds=2), None),  # the alert is of the very first process
        (NOW + timedelta(seconds=2), NOW - timedelta(seconds=1)),  # the same, in a second life
    ],
)
def test_the_same_life(started: datetime, finished: datetime | None) -> None:
    check(started_at=started, finished_at=finished)


@pytest.mark.parametrize(
    ("started", "finished"),
    [
        (NOW + timedelta(seconds=2), NOW + timedelta(seconds=1)),
        (NOW + timedelta(milliseconds=2), NOW),
        (NOW + timedelta(hours=1), None),
        (None, None),
    ],
)
def test_another_life(started: datetime | None, finished: datetime | None) -> None:
    with pytest.raises(Denied):
        check(started_at=started, finished_at=finished)


@pytest.mark.parametrize(
    ("labels", "denied"),
    [
        ({"tocsin.protected": "true"}, True),
        ({"tocsin.protected": "false"}, False),
        ({"team": "db"}, True),
        ({"team": "web"}, False),
        ({"critical": "whatever"}, True),
        ({"env": "prod"}, True),
    ],
)
def test_protected_labels(labels: dict[str, str], denied: bool) -> None:
    guard = Guard(protect_labels=("team=db", "critical"))
    if denied:
        with pytest.raises(Denied, match="protected by the label"):
            check(guard, ("env=prod",), labels=labels)
    else:
        check(guard, ("env=prod",), labels=labels)


@pytest.mark.parametrize("id", [None, "", "web", "c" * 12, "C" * 64, "c" * 63 + "/", "c" * 65])
def test_only_a_full_id_names_a_container(id: str | None) -> None:
    with pytest.raises(Denied):
        Guard().identify(id)


def test_tocsins_own_container() -> None:
    with pytest.raises(Denied, match="own"):
        Guard(own_ids={CONTAINER}).identify(CONTAINER)


def test_own_ids_come_from_cgroup_and_mounts(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text(f"0::/docker/{'a' * 64}\n")
    (tmp_path / "mountinfo").write_text(f"1 2 0:1 /var/lib/docker/containers/{'b' * 64}/hostname /etc/hostname rw\n")
    assert own_container_ids(tmp_path) == {"a" * 64, "b" * 64}
    assert own_container_ids(tmp_path / "none") == frozenset()


TEXT = (
    "name: one\nmatch: {rules: [shell]}\n"
    "steps:\n  - {id: t, uses: probe.touch, with: {file: FILE}, on_error: continue}\n"
)


def outcome(scene: Callable[..., Scene], tmp_path: Path, prepare: Callable[[Scene], None], **changes: Any) -> str:
    s = scene(TEXT.replace("FILE", str(tmp_path / "effect")) + "  - {id: tell, uses: probe.post}\n")
    prepare(s)
    steps = s.steps(s.run_of(alert(**changes)))
    assert steps["tell"].outcome == "changed"  # what changes nothing is never guarded away
    assert not (tmp_path / "effect").exists()
    return f"{steps['t'].outcome}: {steps['t'].reason}"


def test_a_container_that_is_gone(scene: Callable[..., Scene], tmp_path: Path) -> None:
    assert outcome(scene, tmp_path, lambda s: s.daemon.remove(CONTAINER)) == "unchanged: the container is gone"


def test_an_alert_without_a_container(scene: Callable[..., Scene], tmp_path: Path) -> None:
    assert outcome(scene, tmp_path, lambda s: None, container=Container(id="web")).startswith("denied: the alert names")


def test_a_container_that_was_restarted(scene: Callable[..., Scene], tmp_path: Path) -> None:
    def restarted(s: Scene) -> None:
        s.daemon.remove(CONTAINER)
        s.daemon.add(id=CONTAINER, started_at=NOW + timedelta(minutes=1), finished_at=NOW + timedelta(seconds=59))

    assert outcome(scene, tmp_path, restarted, timestamp=NOW).startswith("denied: the container was started again")


def test_the_label_is_read_now_not_when_the_alert_was_made(scene: Callable[..., Scene], tmp_path: Path) -> None:
    def protected(s: Scene) -> None:
        s.daemon.remove(CONTAINER)
        s.daemon.add(id=CONTAINER, started_at=NOW, labels={"tocsin.protected": "true"})

    assert outcome(scene, tmp_path, protected).startswith("denied: the container is protected")


def test_the_kill_switch_survives_a_restart(scene: Callable[..., Scene], tmp_path: Path) -> None:
    def halted(s: Scene) -> None:
        s.core._switch.halt("ann")
        s.restart()

    assert outcome(scene, tmp_path, halted) == "denied: everything is halted by ann"
