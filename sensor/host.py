"""Facts about this host and this boot that every event carries."""

from __future__ import annotations

import os
import platform
import secrets
import socket
from pathlib import Path

from msgspec import UNSET, UnsetType

from ecs_mappings.event import Host, HostBoot, HostOs
from sensor.assembler import Identity


def identity() -> Identity:
    """Of a new run."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Identity(boot_id=boot_id, run=secrets.token_hex(4), host=_host(boot_id))


def _host(boot_id: str) -> Host:
    uname = os.uname()
    release = _os_release()
    return Host(
        id=_machine_id(),
        name=uname.nodename,
        hostname=socket.gethostname(),
        architecture=uname.machine,
        boot=HostBoot(id=boot_id),
        os=HostOs(
            type="linux",
            kernel=uname.release,
            name=release.get("NAME", UNSET),
            version=release.get("VERSION_ID", UNSET),
        ),
    )


def _machine_id() -> str | UnsetType:
    try:
        return Path("/etc/machine-id").read_text().strip() or UNSET
    except OSError:
        return UNSET


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
