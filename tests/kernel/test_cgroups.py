"""Which container a task is in, with cgroups made by hand: nested, too deep, unknown to Docker, or faked by a guest."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import UNSET

from tests.kernel.conftest import Watch, does, watching
from tocsin.lab import Container

pytestmark = [pytest.mark.kernel, pytest.mark.docker]

A, B = "0123456789abcdef" * 4, "fedcba9876543210" * 4


def unified() -> Path:
    """Where the v2 tree is mounted."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(Path(fields[1]) for fields in lines if fields[2] == "cgroup2")


@contextlib.contextmanager
def cgroup(path: str) -> Iterator[Path]:
    """Makes the whole path below the root, and removes what it made."""
    at, made = unified(), []
    try:
        for part in path.split("/"):
            at = at / part
            if not at.exists():
                at.mkdir()
                made.append(at)
        yield at
    finally:
        for folder in reversed(made):
            remove(folder)


def remove(folder: Path) -> None:
    """A process leaves its cgroup only when its parent has taken note of its end."""
    for _ in range(200):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError(f"{folder} is still in use")


def run_in(folder: Path, *command: str) -> None:
    """A program whose parent is not ours: it enters the cgroup, then becomes the command."""
    script = f'echo $$ > {folder}/cgroup.procs; exec "$@"'
    subprocess.run(["setsid", "--fork", "sh", "-c", script, "sh", *command], check=True)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"docker/{A}", A),
        (f"docker/{A}/inner/most", A),
        (f"docker/{A}/docker/{B}", A),
        (f"tocsin-test.slice/docker-{A}.scope", A),
        (f"tocsin-test.slice/cri-containerd-{A}.scope", A),
        (f"tocsin-test.slice/crio-{A}.scope", A),
        (f"tocsin-test.slice/libpod-{A}.scope/container", A),
        (f"tocsin-test.slice/nerdctl-{A}.scope", A),
    ],
)
def test_the_outermost_container_counts(watch: Watch, path: str, found: str) -> None:
    mark = f"mark-cgroup-{len(path)}-{hash(path) & 0xFFFF}"
    with cgroup(path) as folder:
        run_in(folder, "/bin/true", mark)
        event = watch.one(does("exec", command_line=f"/bin/true {mark}"))
        watch.one(does("exit", command_line=f"/bin/true {mark}"))
    assert event.container and event.container.id == found
    assert event.container.name is UNSET  # Docker does not know it; nobody waited long for that
    assert event.tocsin and event.tocsin.latency and isinstance(event.tocsin.latency.captured_ms, float)


@pytest.mark.parametrize("path", [f"tocsin-test.slice/libpod-conmon-{A}.scope", f"tocsin-test.slice/x-{A}"])
def test_what_is_beside_a_container_is_not_in_it(watch: Watch, box: Container, path: str) -> None:
    mark = f"mark-beside-{len(path)}"
    with cgroup(path) as folder:
        run_in(folder, "/bin/true", mark)
        box.run("true", mark)
        watch.one(does("exec", box, command_line=f"true {mark}"))
    assert not watch.all(does("exec", command_line=f"/bin/true {mark}"))


@pytest.mark.parametrize("below", ["/deep" * 40, f"/deep/{B}" + "/deep" * 31, "/deep" * 40 + f"/{B}"])
def test_nobody_hides_or_points_at_another_container_by_nesting_deep(watch: Watch, below: str) -> None:
    mark = f"/bin/true mark-deep-{len(below)}-{below.index(B) if B in below else 0}"
    with cgroup(f"docker/{A}{below}") as folder:
        run_in(folder, *mark.split())
        event = watch.one(does("exec", command_line=mark))
        watch.one(does("exit", command_line=mark))
    assert event.container is UNSET and event.tocsin and event.tocsin.truncated == ["container.id"]


def test_who_broke_out_is_still_seen(watch: Watch, box: Container) -> None:
    """In the container's cgroup and the host's mount namespace, child of a process outside: like runc, but not runc."""
    folder = unified() / "docker" / box.id
    run_in(folder, "/bin/true", "mark-broke-out", "init")
    event = watch.one(does("exec", box, command_line="/bin/true mark-broke-out init"))
    assert event.process and event.process.executable == os.path.realpath("/bin/true")


NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@contextlib.contextmanager
def session() -> Iterator[Path]:
    """A part of the tree that is given to an unprivileged user, as systemd gives one to every user session. What the
    user makes there is removed as well."""
    with cgroup(f"tocsin-test.slice/user@{NOBODY}.service") as folder:
        for part in ("", "cgroup.procs", "cgroup.subtree_control"):
            os.chown(folder / part, NOBODY, NOBODY)
        try:
            yield folder
        finally:
            for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
                remove(inner)


def enters_as_nobody(session: Path, below: str, mark: str) -> None:
    """Root puts a process of the user's into the session, as systemd does; the user does the rest."""
    own = f'mkdir -p "$1" && echo $$ > "$1"/cgroup.procs && exec /bin/true {mark}'
    whole = f'echo $$ > {session}/cgroup.procs; exec "$@"'
    target = str(session / below)
    subprocess.run(["setsid", "--fork", "sh", "-c", whole, "sh", *AS_NOBODY, "sh", "-c", own, "sh", target], check=True)


@pytest.mark.parametrize("below", ["{id}", "docker-{id}.scope", "docker/{id}", "libpod-{id}.scope/inner"])
def test_nobody_poses_as_a_container_from_a_cgroup_of_his_own(
    tmp_path: Path, box: Container, watch: Watch, below: str
) -> None:
    mark = f"mark-spoof-{below.index('{')}-{len(below)}"
    with session() as own, watching(tmp_path, scope="all") as all_of_host:
        enters_as_nobody(own, below.format(id=box.id), mark)
        event = all_of_host.one(does("exec", command_line=f"/bin/true {mark}"))
        all_of_host.one(does("exit", command_line=f"/bin/true {mark}"))
        box.run("true", mark)
        real = all_of_host.one(does("exec", box, command_line=f"true {mark}"))
        watch.one(does("exec", box, command_line=f"true {mark}"))
    assert event.user and event.user.id == str(NOBODY) and event.container is UNSET
    assert real.container and real.container.name == box.name
    assert not watch.all(does("exec", command_line=f"/bin/true {mark}"))


@pytest.mark.parametrize("mode", [0o757, 0o775])
def test_a_cgroup_that_others_may_write_to_names_no_container(watch: Watch, box: Container, mode: int) -> None:
    with cgroup(f"tocsin-test.slice/shared/{A}") as folder:
        folder.parent.chmod(mode)
        os.chown(folder.parent, 0, NOBODY)
        run_in(folder, "/bin/true", f"mark-shared-{mode}")
        box.run("true", f"mark-shared-{mode}")
        watch.one(does("exec", box, command_line=f"true mark-shared-{mode}"))
    assert not watch.all(does("exec", command_line=f"/bin/true mark-shared-{mode}"))


@pytest.mark.parametrize("below", ["", "/inner", f"/docker/{B}"])
def test_a_container_whose_cgroup_is_its_users_is_still_that_container(watch: Watch, below: str) -> None:
    """Runtimes give a container with a user namespace its own cgroup; what its root makes in there is his."""
    mark = f"mark-userns-{len(below)}"
    with cgroup(f"docker/{A}{below}") as folder:
        inner = folder
        while inner.name != "docker" or inner.parent.name == A:
            os.chown(inner, 100_000, 100_000)
            inner = inner.parent
        run_in(folder, "/bin/true", mark)
        event = watch.one(does("exec", command_line=f"/bin/true {mark}"))
        watch.one(does("exit", command_line=f"/bin/true {mark}"))
    assert event.container and event.container.id == A
