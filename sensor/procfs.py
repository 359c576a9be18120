"""Processes of containers that were there before the probes, read once from /proc. Owns no state."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from sensor.containers import container_id
from sensor.frames import ProcessFact
from sensor.processes import TICK_NS
from sensor.record import text

_ARGS_BYTES = 8192
_STAT_PPID, _STAT_START = 1, 19
"""Places in /proc/<pid>/stat counted after the command's closing bracket (proc(5) fields 4 and 22)."""


def container_processes(proc: Path = Path("/proc"), cgroups: Path | None = None) -> list[ProcessFact]:
    """One fact a process, parents before children. Start times have the resolution of a clock tick, as in Key.

    `cgroups` is where the v2 tree is mounted, which alone the kernel side looks at; by default it is looked for.
    """
    tree = cgroups or _v2_tree(proc)
    if tree is None:
        return []
    found = {fact.pid: fact for fact in _read_all(proc, tree)}
    return sorted(found.values(), key=lambda fact: _depth(fact, found))


def _depth(fact: ProcessFact, found: dict[int, ProcessFact]) -> int:
    depth = 0
    above = found.get(fact.ppid)
    while above is not None and depth < len(found):
        depth += 1
        above = found.get(above.ppid)
    return depth


def _v2_tree(proc: Path) -> Path | None:
    mounts = (line.split() for line in (proc / "self/mounts").read_text().splitlines())
    return next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)


def _read_all(proc: Path, tree: Path) -> Iterator[ProcessFact]:
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            try:
                fact = _read(Path(entry.path), proc, tree)
            except (OSError, ValueError, LookupError):
                continue  # it ended meanwhile
            if fact is not None:
                yield fact


def _read(directory: Path, proc: Path, tree: Path) -> ProcessFact | None:
    v2 = re.search(r"^0::(.*)$", (directory / "cgroup").read_text(), re.MULTILINE)
    container = container_id(v2[1], lambda above: _is_roots(tree, above)) if v2 else None
    if container is None:
        return None
    ppid, start_ns = _stat(directory)
    with (directory / "cmdline").open("rb") as file:
        raw = file.read(_ARGS_BYTES)
    return ProcessFact(
        pid=int(directory.name),
        start_ns=start_ns,
        ppid=ppid,
        parent_start_ns=_stat(proc / str(ppid))[1] if ppid else 0,
        container=container,
        executable=_link(directory / "exe"),
        args=[text(arg) for arg in raw.removesuffix(b"\0").split(b"\0")],
        working_directory=_link(directory / "cwd"),
    )


def _is_roots(tree: Path, cgroup: str) -> bool:
    """Whether nobody but root may make cgroups in this one. Raises OSError when it is gone."""
    found = os.stat(f"{tree}{cgroup}")
    group_writes = found.st_mode & stat.S_IWGRP and found.st_gid
    return not (found.st_uid or found.st_mode & stat.S_IWOTH or group_writes)


def start_tick(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: what tells it from another with its pid. None if gone."""
    try:
        return _stat(Path("/proc", str(pid)))[1] // TICK_NS
    except (OSError, ValueError, LookupError):
        return None


def _stat(directory: Path) -> tuple[int, int]:
    fields = (directory / "stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[_STAT_PPID]), int(fields[_STAT_START]) * TICK_NS


def _link(path: Path) -> str:
    try:
        return text(os.readlink(os.fsencode(path))).removesuffix(" (deleted)")
    except OSError:
        return ""
