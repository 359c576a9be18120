"""Containers by id: what is known of them now, and how a cgroup path names them. Owned by the pipeline thread."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator

from ecs_mappings.event import Container

GRACE_NS = 500_000_000
"""How long a removed container keeps its name, for events that are still on their way."""
MAX_REMEMBERED = 4096

_ID = re.compile(r"(?:(?:docker|libpod|crio|nerdctl|cri-containerd)-)?([0-9a-f]{64})(?:\.scope)?")
"""docker, containerd, cri-o, podman, nerdctl; cgroupfs and systemd. bpf/common.h id_position() has the same table.
libpod-conmon-<id> and crio-conmon-<id> are the monitors beside a container, not in it."""


def container_id(cgroup_path: str, is_roots: Callable[[str], bool]) -> str | None:
    """The id of the outermost container in a cgroup path, or None; as bpf/common.h find_container() has it.

    The outermost, because whoever is root in a container may make cgroups below it with any name. All cgroups above it
    must be root's, because systemd gives every user session a part of the tree where the user does the same.
    """
    parts = cgroup_path.split("/")
    for n, part in enumerate(parts):
        found = _ID.fullmatch(part)
        if found:
            above = ("/".join(parts[:i]) for i in range(1, n + 1))
            return found[1] if all(map(is_roots, above)) else None
    return None


class Containers:
    """Event-driven: nothing here asks anybody. `now_ns` is CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._known: dict[str, Container] = {}
        self._forget_at_ns: dict[str, int] = {}
        self._unnamed: OrderedDict[str, Container] = OrderedDict()
        self._removed: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def learn(self, container: Container) -> None:
        """The newest word on it. An answer that comes after the removal is no news: ids are never used again."""
        if container.id in self._removed:
            return
        self._known[container.id] = container
        self._unnamed.pop(container.id, None)

    def removed(self, container_id: str, now_ns: int) -> None:
        """Forgets the container GRACE_NS from now."""
        self._removed[container_id] = None
        if len(self._removed) > MAX_REMEMBERED:
            self._removed.popitem(last=False)
        if container_id in self._known:
            self._forget_at_ns[container_id] = now_ns + GRACE_NS

    def forget(self, now_ns: int) -> None:
        """Drops those whose grace is over; to be called a few times a second."""
        for container_id in [c for c, at in self._forget_at_ns.items() if at <= now_ns]:
            del self._known[container_id], self._forget_at_ns[container_id]

    def get(self, container_id: str) -> Container:
        """What is known, or the id alone."""
        found = self._known.get(container_id) or self._unnamed.get(container_id)
        if found is None:
            found = self._unnamed[container_id] = Container(id=container_id)
            if len(self._unnamed) > MAX_REMEMBERED:
                self._unnamed.popitem(last=False)
        return found
