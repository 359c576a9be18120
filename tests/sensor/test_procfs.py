"""Processes that were there before, from a /proc made by hand."""

from __future__ import annotations

import os
from pathlib import Path

from sensor.procfs import container_processes

A = "ab" * 32


def process(proc: Path, pid: int, ppid: int, *, cgroup: str, start: int, args: bytes = b"", name: str = "x") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (proc / "cgroups" / cgroup.strip("/")).mkdir(parents=True, exist_ok=True)
    (folder / "cgroup").write_text(f"0::{cgroup}\n")
    (folder / "stat").write_text(f"{pid} ({name}) S {ppid} " + "0 " * 17 + f"{start} 0 0\n")
    (folder / "cmdline").write_bytes(args)
    (folder / "exe").symlink_to("/bin/busybox (deleted)")
    (folder / "cwd").symlink_to("/srv")


def test_processes_of_containers_parents_first(tmp_path: Path) -> None:
    process(tmp_path, 300, 400, cgroup=f"/docker/{A}", start=900, args=b"id\0")
    process(tmp_path, 400, 500, cgroup=f"/docker/{A}", start=800, args=b"sh\0-c\0x y\0", name="a) S 1 (b")
    process(tmp_path, 500, 1, cgroup="/system.slice/containerd.service", start=700)
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mounts").write_text(f"cgroup2 {tmp_path}/cgroups cgroup2 rw 0 0\n")
    (tmp_path / "600").mkdir()  # ended while we looked
    child, parent = reversed(container_processes(tmp_path))
    assert (child.pid, parent.pid) == (300, 400)
    assert parent.args == ["sh", "-c", "x y"] and parent.executable == "/bin/busybox"
    assert parent.working_directory == "/srv" and parent.container == A
    assert (parent.start_ns, parent.parent_start_ns) == (8_000_000_000, 7_000_000_000)
    assert child.ppid == 400 and child.parent_start_ns == parent.start_ns


def test_a_process_without_arguments_is_read(tmp_path: Path) -> None:
    process(tmp_path, 300, 0, cgroup=f"/docker/{A}", start=1)
    (fact,) = container_processes(tmp_path, tmp_path / "cgroups")
    assert fact.args == [""] and fact.parent_start_ns == 0


def test_only_root_names_containers(tmp_path: Path) -> None:
    for pid, (folder, uid, gid, mode) in enumerate(
        [("own", 1000, 1000, 0o755), ("shared", 0, 1000, 0o775), ("open", 0, 0, 0o757), ("roots", 0, 1000, 0o755)], 300
    ):
        process(tmp_path, pid, 0, cgroup=f"/{folder}/{A}", start=1)
        os.chown(tmp_path / "cgroups" / folder, uid, gid)
        (tmp_path / "cgroups" / folder).chmod(mode)
    (fact,) = container_processes(tmp_path, tmp_path / "cgroups")
    assert fact.pid == 303


def test_a_path_of_another_hierarchy_names_no_container(tmp_path: Path) -> None:
    process(tmp_path, 300, 0, cgroup=f"/docker/{A}", start=1)
    (tmp_path / "300/cgroup").write_text(f"1:name=systemd:/docker/{A}\n0::/\n")
    assert container_processes(tmp_path, tmp_path / "cgroups") == []
