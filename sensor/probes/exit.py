"""exit: a process ended. The twin of bpf/exit.c.

process.exit_code is what a shell shows: the code, or 128 + the signal's number, with the signal's name beside it.
event.duration is the life of the process. Processes that only forked are reported too, as what their parent runs.
"""

from __future__ import annotations

import signal
import struct

import msgspec
from msgspec import UNSET, UnsetType

from sensor.record import Header, Malformed
from sensor.sighting import Hook, Scene, Sighting

DATASET = "tocsin.process"
CATEGORY = ["process"]
TYPE = ["end"]
HOOKS = (Hook("raw_tracepoint", "sched_process_exit", "tocsin_exit"),)
OFFSETS = (
    ("signal_struct", "flags"),
    ("signal_struct", "group_exit_code"),
    ("signal_struct", "live"),
    ("task_struct", "exit_code"),
)
LAYOUT = struct.Struct("=I4x")

_SETUP = b"runc:["


def read(header: Header, body: bytes, scene: Scene) -> Sighting | None:
    """None for the stages of the container runtime, which never executed a program in the container."""
    if len(body) != LAYOUT.size:
        raise Malformed(f"an exit record's body has {LAYOUT.size} bytes, not {len(body)}")
    (status,) = LAYOUT.unpack(body)
    processes = scene.processes
    if header.comm.startswith(_SETUP) and processes.runs(header, "") is None:
        return None
    start = scene.when(header.start_ns)
    process, detail, cut = processes.describe(header, "", start, scene.when(header.parent_start_ns))
    processes.ended(header.pid, header.start_ns)
    number = status & 0x7F
    return Sighting(
        msgspec.structs.replace(
            process,
            exit_code=128 + number if number else status >> 8 & 0xFF,
            end=scene.when(header.time_ns),
        ),
        msgspec.structs.replace(detail, signal=_signal_name(number)),
        duration_ns=max(0, header.time_ns - header.start_ns),
        truncated=cut,
    )


def _signal_name(number: int) -> str | UnsetType:
    if not number:
        return UNSET
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRT{number}"
