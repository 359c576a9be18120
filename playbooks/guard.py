"""The last look before something is changed: is this still the container of the alert, and may it be touched?

Fails closed: what cannot be found out is a no.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ecs_mappings.event import Event

if TYPE_CHECKING:
    from playbooks.daemon import ContainerState

ALWAYS_PROTECTED = ("tocsin.protected=true",)
"""Labels of containers that no playbook touches, whatever the settings say."""

START_SLACK = timedelta(seconds=30)
"""A container's first process is seen by the kernel before Docker notes the start; under load, well before."""

_FULL_ID = re.compile(r"[0-9a-f]{64}")


class Denied(Exception):
    """The step may not act; the message is the reason, for people."""


@dataclass(frozen=True)
class Guard:
    """What is true for all playbooks."""

    protect_labels: Collection[str] = ALWAYS_PROTECTED
    own_ids: Collection[str] = ()
    """Containers that Tocsin itself runs in."""

    def identify(self, container_id: str | None) -> str:
        """The full id to act on. Denied when the alert names none: a name or a short id could be another container."""
        if container_id is None or not _FULL_ID.fullmatch(container_id):
            raise Denied("the alert names no container by its full id")
        if container_id in self.own_ids:
            raise Denied("this is Tocsin's own container")
        return container_id

    def check(self, alert: Event, seen: ContainerState, protect: Iterable[str]) -> None:
        """Denied unless `seen` is in the life the alert is about, and carries no protected label."""
        for label in (*ALWAYS_PROTECTED, *self.protect_labels, *protect):
            if has_label(seen.labels, label):
                raise Denied(f"the container is protected by the label {label}")
        if seen.started_at is None:
            raise Denied("Docker does not say when the container started")
        if _another_life(alert.timestamp, seen.started_at, seen.finished_at):
            raise Denied(f"the container was started again at {seen.started_at.isoformat()}, after the alert")


def has_label(labels: dict[str, str], wanted: str) -> bool:
    """`key=value`, or `key` for any value."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _another_life(alert: datetime, started: datetime, finished: datetime | None) -> bool:
    """A start after the alert is a new life if the former one ended after the alert too.

    Docker notes a start later than the kernel sees the first process, so an alert of that process is a little older
    than the start it belongs to; but the end of the life before, if there was one, is older still.
    """
    if started <= alert:
        return False
    return started - alert > START_SLACK or (finished is not None and finished >= alert)


def own_container_ids(proc: Path = Path("/proc/self")) -> frozenset[str]:
    """Ids of the containers this process runs in; empty on a plain host."""
    found: set[str] = set()
    for name, pattern in (("cgroup", r"[0-9a-f]{64}"), ("mountinfo", r"/containers/([0-9a-f]{64})/host")):
        try:
            found.update(re.findall(pattern, (proc / name).read_text()))
        except OSError:
            continue
    return frozenset(found)
