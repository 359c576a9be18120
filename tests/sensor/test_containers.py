"""Which container a cgroup path names, and when what is known of it is forgotten."""

from __future__ import annotations

import re

import pytest

from ecs_mappings.event import Container
from sensor.containers import GRACE_NS, Containers, container_id
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
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope", A),  # but see below
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
    assert container_id(path, lambda above: True) == found


@pytest.mark.parametrize(
    ("path", "givens", "found"),
    [
        (f"/user.slice/user@1000.service/{A}", {"/user.slice/user@1000.service"}, None),  # whoever calls himself so
        (f"/user.slice/user@1000.service/app.slice/libpod-{A}.scope", {"/user.slice/user@1000.service"}, None),
        (f"/user.slice/user@1000.service/{A}/docker/{B}", {"/user.slice/user@1000.service"}, None),
        (f"/docker/{A}", {f"/docker/{A}"}, A),  # a container's own cgroup may be its user's
        (f"/docker/{A}/docker/{B}", {f"/docker/{A}", f"/docker/{A}/docker"}, A),
        (f"/{A}", {""}, None),
    ],
)
def test_a_cgroup_below_one_that_is_not_roots_is_no_container(path: str, givens: set[str], found: str | None) -> None:
    assert container_id(path, lambda above: above not in givens) == found


def test_the_kernel_side_tells_by_the_same_lengths() -> None:
    """bpf/common.h knows the forms by the length of the name with its NUL."""
    source = (SOURCES / "common.h").read_text()
    cases = {int(n): 0 for n in re.findall(r"case (\d+):", source)}
    forms = {"": 0, "crio-": 5, "docker-": 7, "libpod-": 7, "nerdctl-": 8, "cri-containerd-": 15}
    scopes = {len(prefix) + 64 + len(".scope") + 1 for prefix in forms if prefix}
    bare = {len(prefix) + 64 + 1 for prefix in ("", "crio-", "libpod-")}
    assert set(cases) == scopes | bare
    for prefix in forms:
        name = f"/{prefix}{A}.scope" if prefix else f"/{A}"
        assert container_id(name, lambda above: True) == A


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
