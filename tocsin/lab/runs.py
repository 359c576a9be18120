"""The name of one run of the lab, which tells whether the process that began it still lives."""

from __future__ import annotations

import os
import re
from pathlib import Path

LABEL = "tocsin.lab"
"""On every container, network and image of a lab; its value is the run."""
DIRECTORY = "tocsin-lab-"
"""Temporary directories of a lab are named so, then comes the run, then a dot."""

_RUN = re.compile(r"([0-9]{1,12})-([0-9]{1,10})-([0-9]{1,20})(-[0-9]{1,9})?")


def new(serial: int = 0) -> str:
    """<PID namespace>-<pid>-<start time>[-<serial>]: unique on this host until it boots, and checkable."""
    name = f"{_namespace()}-{os.getpid()}-{_started(os.getpid())}"
    return f"{name}-{serial}" if serial else name


def is_dead(run: str) -> bool:
    """True only when this host can be sure: an unknown form, or another PID namespace, is left alone."""
    parts = _RUN.fullmatch(run)
    if parts is None or parts[1] != _namespace():
        return False
    return _started(int(parts[2])) != parts[3]


def _namespace() -> str:
    return str(os.stat("/proc/self/ns/pid").st_ino)


def _started(pid: int) -> str:
    """Clock ticks from boot to the start of the process; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
