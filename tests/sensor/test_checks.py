"""What `tocsin doctor` hears of a host that lacks something."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sensor import checks
from sensor.checks import Check, capabilities


def failed() -> dict[str, Check]:
    return {check.name: check for check in capabilities() if not check.ok}


def test_every_failure_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("cgroup /sys/fs/cgroup/memory cgroup rw 0 0\n")
    monkeypatch.setattr(checks, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(checks, "TRACEFS", tmp_path)
    monkeypatch.setitem(sys.modules, "bcc", None)
    monkeypatch.setattr("sensor.btf._LIBRARY", "libbpf.so.none")
    found = failed()
    assert {"bcc", "btf", "cgroups", "tracefs"} <= set(found)
    assert all(check.detail and check.remedy for check in found.values())
    assert found["bcc"].remedy == "apt-get install python3-bpfcc"
    assert found["btf"].remedy == "apt-get install libbpf1"
    assert found["cgroups"].needed and not found["tracefs"].needed
    assert not any(name.startswith("tracepoint") for name in found)  # unknown, not missing


def test_the_package_with_bccs_name_is_told_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", os)
    assert "is not BCC" in failed()["bcc"].detail


def test_a_missing_tracepoint_costs_one_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sched_process_exec", "sched_process_exit"):
        (tmp_path / "events" / "sched" / name).mkdir(parents=True)
    monkeypatch.setattr(checks, "TRACEFS", tmp_path)
    check = failed()["tracepoint syscalls:sys_exit_connect"]
    assert check.detail == "missing: the probe connect is off" and not check.needed


@pytest.mark.parametrize(
    ("release", "ok", "needed"), [("5.4.0-1", False, True), ("5.10.0", False, False), ("6.1.0", True, True)]
)
def test_old_kernels(monkeypatch: pytest.MonkeyPatch, release: str, ok: bool, needed: bool) -> None:
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*uname[:2], release, *uname[3:])))
    check = next(c for c in capabilities() if c.name == "kernel")
    assert (check.ok, check.needed) == (ok, needed)
