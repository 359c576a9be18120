"""A program is started under more cgroups than the sensor walks, so that nobody can say whose it is."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tocsin.lab.range import Range

pytestmark = [pytest.mark.docker, pytest.mark.kernel]

LEVELS = 40


def test_a_program_under_many_cgroups(shooting_range: Range) -> None:
    container = shooting_range.container()
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    inside = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2") / "docker" / container.id
    deep = inside.joinpath(*["deep"] * LEVELS)
    deep.mkdir(parents=True)
    try:
        subprocess.run(["sh", "-c", f"echo $$ > {deep}/cgroup.procs; exec /bin/true"], check=True)
        shooting_range.alert("hidden-in-cgroups", None)
    finally:
        for folder in [deep, *deep.parents][:LEVELS]:
            _remove(folder)


def _remove(folder: Path) -> None:
    """The kernel takes a moment to notice that a cgroup's last process is gone."""
    for _ in range(100):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.01)
        else:
            return
