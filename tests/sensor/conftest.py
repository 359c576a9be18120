"""Kernel records made by hand: bytes in, JSON out."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from ecs_mappings.event import Host
from sensor import probes, record
from sensor.assembler import Assembler, Identity
from sensor.frames import ClockFact, Frame, frame_of
from sensor.probes import exec as exec_probe

CONTAINER = "ab" * 32
BOOT_ID = "01234567-89ab-cdef-0123-456789abcdef"
OFFSET_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000

settings.register_profile("tocsin", deadline=None)
settings.load_profile("tocsin")


class Records:
    """Builds frames as the C side would."""

    container = CONTAINER

    def frame(self, probe: str, body: bytes, **fields: Any) -> Frame:
        head: dict[str, Any] = {
            "size": record.LAYOUT.size + len(body), "probe": 0, "flags": 0, "time_ns": 100 * SECOND,
            "start_ns": 99 * SECOND, "parent_start_ns": 50 * SECOND, "pid": 1234, "tid": 1234, "vpid": 7, "ppid": 1000,
            "uid": 0, "gid": 0, "tty_major": 0, "tty_minor": 0, "container": CONTAINER.encode(), "comm": b"sh",
            "parent_comm": b"containerd-shim", "tty": b"",
        }  # fmt: skip
        head.update(fields)
        return Frame(probe, record.LAYOUT.pack(*head.values()) + body)

    def exec(
        self, *args: bytes, executable: bytes = b"/usr/bin/curl", directory: bytes = b"/srv", cut: int = 0,
        chain: tuple[tuple[int, int, int], ...] = (), streams: tuple[int, int, int] = (5, 4, 4), **fields: Any,
    ) -> Frame:  # fmt: skip
        """`chain`: (start_ns, pid, same cgroup), parent first; `cut`: bytes of the arguments that did not fit."""
        packed = b"".join(arg + b"\0" for arg in args)
        kept = packed[: len(packed) - cut]
        paths = [b"".join(part + b"\0" for part in reversed(p.split(b"/")[1:])) for p in (executable, directory)]
        body = exec_probe.LAYOUT.pack(
            len(args), len(packed), len(chain), len(paths[0]), len(paths[1]), len(kept), 0, 0, *streams
        )
        body += b"".join(struct.pack("=QII", *link) for link in chain)
        return self.frame("exec", body + paths[0] + paths[1] + kept, **fields)

    def exit(self, status: int = 0, **fields: Any) -> Frame:
        return self.frame("exit", struct.pack("=I4x", status), **fields)

    def connect(
        self, result: int, protocol: int, source: bytes, source_port: int, destination: bytes, port: int,
        executable: bytes = b"curl\0bin\0usr\0", **fields: Any,
    ) -> Frame:  # fmt: skip
        body = struct.pack(
            "=iHHHHHH16s16s", result, 2, protocol, source_port, int.from_bytes(port.to_bytes(2, "big"), "little"),
            len(executable), 0, source, destination,
        )  # fmt: skip
        return self.frame("connect", body + executable, **fields)


@pytest.fixture(scope="session")
def records() -> Records:
    return Records()


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity(boot_id=BOOT_ID, run="run1", host=Host(name="h"))


@pytest.fixture
def new_assembler(identity: Identity) -> Callable[[], Assembler]:
    def make() -> Assembler:
        made = Assembler(identity, probes.load_all())
        made.take(frame_of(ClockFact(OFFSET_NS)), 0)
        return made

    return make


@pytest.fixture
def assembler(new_assembler: Callable[[], Assembler]) -> Assembler:
    return new_assembler()
