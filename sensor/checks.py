"""What this host lets the sensor do, each with the command that mends it. For `tocsin doctor`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sensor import probes, record
from sensor.btf import Btf
from sensor.sighting import Hook
from sensor.sources.bcc import load_bcc
from tocsin.errors import ConfigError, Problem, TocsinError

TRACEFS = Path("/sys/kernel/tracing")
MOUNTS = Path("/proc/self/mounts")
_CAPABILITIES = {"CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_SYS_ADMIN": 21}
RING_BUFFER_SINCE = (5, 8)
CONNECT_SINCE = (5, 15)


class Check(NamedTuple):
    name: str
    ok: bool
    detail: str
    remedy: str
    """The command that mends it; empty when it is fine."""
    needed: bool = True
    """Without it nothing can be captured; without the others some events are missing, and the sensor says so."""


def capabilities() -> list[Check]:
    """Every condition of capture, tried on this host; needs no rights and changes nothing."""
    return [_rights(), _kernel(), _bcc(), *_btf(), _cgroups(), _tracefs(), *_hooks()]


def need() -> None:
    """ConfigError where nothing can be captured, with each reason and what mends it."""
    lacking = [c for c in capabilities() if c.needed and not c.ok]
    if lacking:
        raise ConfigError([Problem(f"sensor: {c.name}", 0, f"{c.detail}; mend it with: {c.remedy}") for c in lacking])


def _rights() -> Check:
    mask = int(re.findall(r"CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text())[0], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not mask >> bit & 1]
    if missing:
        return Check("rights", False, f"this process lacks {', '.join(missing)}", "run the sensor as root")
    return Check("rights", True, "may load BPF programs", "")


def _kernel() -> Check:
    release = os.uname().release
    found = tuple(int(x) for x in re.findall(r"\d+", release)[:2])
    if found < RING_BUFFER_SINCE:
        return Check("kernel", False, f"{release} has no BPF ring buffer (since 5.8)", "boot a kernel 5.15 or later")
    if found < CONNECT_SINCE:
        return Check("kernel", False, f"{release} cannot serve the probe connect", "boot a kernel 5.15 or later", False)
    return Check("kernel", True, f"{release} has BPF ring buffers", "")


def _bcc() -> Check:
    try:
        load_bcc()
    except TocsinError as e:
        return Check("bcc", False, str(e), "apt-get install python3-bpfcc")
    return Check("bcc", True, "BCC can be imported", "")


def _btf() -> list[Check]:
    """libbpf and BTF together, then the fields of each probe."""
    try:
        btf = Btf()
        _need(btf, record.OFFSETS)
    except TocsinError as e:
        remedy = "apt-get install libbpf1" if "libbpf" in str(e) else "boot a kernel with CONFIG_DEBUG_INFO_BTF=y"
        return [Check("btf", False, str(e), remedy)]
    checks = [Check("btf", True, "the kernel describes its structs", "")]
    for name, probe in probes.load_all().items():
        try:
            _need(btf, probe.OFFSETS)
        except TocsinError as e:
            checks.append(Check(f"probe {name}", False, str(e), "report it, with the kernel's version", False))
    return checks


def _need(btf: Btf, fields: Iterable[tuple[str, ...]]) -> None:
    for struct_name, *names in fields:
        btf.offset(struct_name, *names)


def _cgroups() -> Check:
    """The kernel side tells containers apart by the v2 tree, which hybrid hosts have beside v1."""
    if any(line.split()[2] == "cgroup2" for line in MOUNTS.read_text().splitlines()):
        return Check("cgroups", True, "the cgroup v2 tree tells containers apart", "")
    remedy = "boot with systemd.unified_cgroup_hierarchy=1, or mount a hybrid tree before dockerd starts"
    return Check("cgroups", False, "no cgroup v2 tree is mounted: no process can be seen as a container's", remedy)


def _tracefs() -> Check:
    if os.path.isdir(TRACEFS / "events"):  # pathlib's raises where one may not look
        return Check("tracefs", True, f"mounted at {TRACEFS}", "")
    remedy = f"mount -t tracefs tracefs {TRACEFS} (the sensor does it when it starts as root)"
    return Check("tracefs", False, f"not mounted at {TRACEFS}, or not readable", remedy, False)


def _hooks() -> list[Check]:
    """None while tracefs is not there to look into."""
    if not os.path.isdir(TRACEFS / "events"):
        return []
    return [_hook(name, hook) for name, probe in probes.load_all().items() for hook in probe.HOOKS]


def _hook(probe: str, hook: Hook) -> Check:
    pattern = hook.at.replace(":", "/") if hook.kind == "tracepoint" else f"*/{hook.at}"
    name = f"tracepoint {hook.at}"
    if any((TRACEFS / "events").glob(pattern)):
        return Check(name, True, f"serves the probe {probe}", "")
    return Check(
        name, False, f"missing: the probe {probe} is off", "boot a kernel with CONFIG_FTRACE_SYSCALLS=y", False
    )
