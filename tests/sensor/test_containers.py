"""Which container a cgroup path names, and when what is known of it is forgotten."""

from __future__ import annotations

import re

import pytest

from ecs_mappings.event import Container
from sensor.containers import GRACE_NS, Containers, container_id, container_id_of_proc
from sensor.probes import SOURCES

A, B = "0123456789abcdef" * 4, "f" * 64


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"/docker/{A}", A),  # docker, cgroupfs
        (f"/system.slice/docker-{A}.scope", A),  # docker, systemd
        (f"/docker/{A}/init.scope", A),  # systemd inside
        (f"/docker/{A}/docker/{B}", A),  # docker in docker: the host's own container
        (f"/default/{A}", A),  # containerd
        (f"/system.slice/nerdctl-{A}.scope", A),
        (f"/kubepods/burstable/pod12345678-1234-1234-1234-123456789abc/{A}", A),  # kube, cgroupfs
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/cri-containerd-{A}.scope",
            A,
        ),  # kube with containerd, systemd
        (f"/kubepods.slice/kubepods-pod1_2.slice/crio-{A}.scope", A),  # cri-o, systemd
        (f"/kubepods/pod1-2/crio-{A}", A),  # cri-o, cgroupfs
        (f"/machine.slice/libpod-{A}.scope", A),  # podman, systemd
        (f"/machine.slice/libpod-{A}.scope/container", A),  # podman on v2
        (f"/libpod_parent/libpod-{A}", A),  # podman, cgroupfs
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope", A),  # podman, rootless
        (f"/machine.slice/libpod-conmon-{A}.scope", None),  # the monitor beside it
        (f"/kubepods.slice/crio-conmon-{A}.scope", None),
        ("/", None),
        ("/system.slice/docker.service", None),
        (f"/docker/{A[:-1]}", None),
        (f"/docker/{A.upper()}", None),
        (f"/docker/{A}x", None),
        (f"/docker/x-{A}", None),
    ],
)
def test_container_id(path: str, found: str | None) -> None:
    assert container_id(path) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"0::/system.slice/docker-{A}.scope\n", A),  # v2
        (f"12:memory:/docker/{A}\n11:cpu,cpuacct:/docker/{A}\n1:name=systemd:/docker/{A}\n0::/\n", A),  # v1
        (f"2:pids:/docker/{B}\n0::/docker/{A}\n", A),  # hybrid: what the kernel side sees
        ("0::/init.scope\n", None),
        ("", None),
        (":::::\n\n", None),
    ],
)
def test_container_id_of_proc(text: str, found: str | None) -> None:
    assert container_id_of_proc(text) == found


def test_the_kernel_side_tells_by_the_same_lengths() -> None:
    """bpf/common.h knows the forms by the length of the name with its NUL."""
    source = (SOURCES / "common.h").read_text()
    cases = {int(n): 0 for n in re.findall(r"case (\d+):", source)}
    forms = {"": 0, "crio-": 5, "docker-": 7, "libpod-": 7, "nerdctl-": 8, "cri-containerd-": 15}
    scopes = {len(prefix) + 64 + len(".scope") + 1 for prefix in forms if prefix}
    bare = {len(prefix) + 64 + 1 for prefix in ("", "crio-", "libpod-")}
    assert set(cases) == scopes | bare
    for prefix in forms:
        assert container_id(f"/{prefix}{A}" if not prefix else f"/{prefix}{A}.scope") == A


def test_a_removed_container_keeps_its_name_for_a_moment() -> None:
    known = Containers()
    known.learn(Container(id=A, name="web"))
    known.removed(A, now_ns=0)
    known.forget(GRACE_NS - 1)
    assert known.get(A).name == "web"
    known.forget(GRACE_NS)
    assert A not in known and known.get(A) == Container(id=A)


def test_a_late_answer_does_not_bring_a_container_back() -> None:
    known = Containers()
    known.removed(A, now_ns=0)
    known.learn(Container(id=A, name="web"))
    assert A not in known
    known.learn(Container(id=B, name="web"))
    known.removed(B, now_ns=0)
    known.learn(Container(id=B, name="web"))
    known.forget(GRACE_NS)
    assert B not in known and len(known) == 0


def test_the_unknown_are_bounded() -> None:
    known = Containers()
    for i in range(5000):
        known.get(f"{i:064x}")
    assert len(known._unnamed) <= 4096 and len(known) == 0
