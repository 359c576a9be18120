"""Processes of containers that were there before the probes, read once from /proc. Owns no state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sensor.containers import container_id_of_proc
from sensor.frames import ProcessFact
from sensor.processes import TICK_NS
from sensor.record import text

_ARGS_BYTES = 8192
_STAT_PPID, _STAT_START = 1, 19
"""Places in /proc/<pid>/stat counted after the command's closing bracket (proc(5) fields 4 and 22)."""


def container_processes(proc: Path = Path("/proc")) -> list[ProcessFact]:
    """One fact a process, parents before children. Start times have the resolution of a clock tick, as in Key."""
    found = {fact.pid: fact for fact in _read_all(proc)}
    return sorted(found.values(), key=lambda fact: _depth(fact, found))


def _depth(fact: ProcessFact, found: dict[int, ProcessFact]) -> int:
    depth = 0
    above = found.get(fact.ppid)
    while above is not None and depth < len(found):
        depth += 1
        above = found.get(above.ppid)
    return depth


def _read_all(proc: Path) -> Iterator[ProcessFact]:
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            try:
                fact = _read(Path(entry.path), proc)
            except (OSError, ValueError, LookupError):
                continue  # it ended meanwhile
            if fact is not None:
                yield fact


def _read(directory: Path, proc: Path) -> ProcessFact | None:
    container = container_id_of_proc((directory / "cgroup").read_text())
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
