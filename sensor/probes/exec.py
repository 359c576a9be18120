"""exec: a program was started. The twin of bpf/exec.c, which says where each value comes from.

The container runtime's own executions inside a new container's cgroup are no news: runc starts itself again ("runc
init") from a sealed copy before it enters the container. Such a record is dropped only when the kernel says that the
process is still in the host's mount namespace and a child of a process of another cgroup, it is runc init by name, and
nothing of the container is above it. Who broke out of a container can have all but the last.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from msgspec import UNSET

from ecs_mappings.event import Process, ProcessDetail
from sensor.processes import Link, Processes, interactive, tty, tty_name
from sensor.program import Program, called
from sensor.record import FLAG_SETUP, Header, Malformed, path, text
from sensor.sighting import Hook, Scene, Sighting

DATASET = "tocsin.process"
CATEGORY = ["process"]
TYPE = ["start"]
HOOKS = (Hook("raw_tracepoint", "sched_process_exec", "tocsin_exec"),)
OFFSETS = (
    ("fs_struct", "pwd"),
    ("linux_binprm", "argc"),
    ("mm_struct", "arg_end"),
    ("mm_struct", "arg_start"),
    ("task_struct", "fs"),
)
LAYOUT = struct.Struct("=IIHHHHHH3Bx")

_ANCESTOR = struct.Struct("=QII")
_STREAMS = ("closed", "other", "socket_inet", "socket_unix", "pipe", "char", "file")
_RUNTIMES = {"runc", "crun", "youki", "memfd:runc_cloned:/proc/self/exe"}


class _Exec(NamedTuple):
    """A record's body, understood."""

    program: Program
    chain: list[Link]
    """Parent first."""
    streams: tuple[str, str, str]
    truncated: tuple[str, ...]


def read(header: Header, body: bytes, scene: Scene) -> Sighting | None:
    """Remembers the process as well: later records of it and of its children refer to this one."""
    program, chain, streams, truncated = _parse(body)
    processes = scene.processes
    if header.flags & FLAG_SETUP and _is_runtime(program) and not _from_inside(header, chain, processes):
        return None
    start = scene.when(header.start_ns)
    parent, parent_truncated = processes.parent(header, scene.when(header.parent_start_ns))
    known = processes.executed(
        header.pid, header.start_ns, start, header.container, program, parent,
        processes.ancestors(header.container, chain),
    )  # fmt: skip
    process = Process(
        pid=header.pid,
        vpid=header.vpid,
        entity_id=known.entity_id,
        name=program.name,
        executable=program.executable,
        args=program.args,
        args_count=program.args_count,
        command_line=program.command_line,
        working_directory=program.working_directory,
        interactive=interactive(header),
        tty=tty(header),
        start=start,
        parent=parent,
    )
    detail = ProcessDetail(
        tty=tty_name(header),
        stdin=streams[0],
        stdout=streams[1],
        stderr=streams[2],
        ancestors=known.ancestors or UNSET,
    )
    return Sighting(process, detail, "success", truncated=parent_truncated + truncated)


def _parse(body: bytes) -> _Exec:
    (
        argc, args_size, ancestors, executable_size, directory_size, args_kept, executable_cut, directory_cut,
        stdin, stdout, stderr,
    ) = LAYOUT.unpack_from(body)  # fmt: skip
    at_executable = LAYOUT.size + ancestors * _ANCESTOR.size
    at_directory = at_executable + executable_size
    at_args = at_directory + directory_size
    if at_args + args_kept != len(body):
        raise Malformed(f"the parts of an exec record of {len(body)} bytes end at {at_args + args_kept}")
    args = [text(arg) for arg in body[at_args:].split(b"\0")]
    if not args[-1]:
        args.pop()  # every argument is NUL-ended; without the last NUL, the last one is cut
    executable = path(body[at_executable:at_directory])
    directory = path(body[at_directory:at_args])
    truncated: tuple[str, ...] = ()
    if args_kept != args_size:
        truncated += ("process.args", "process.command_line")
    if executable_cut:
        truncated += ("process.executable",)
    if directory_cut:
        truncated += ("process.working_directory",)
    return _Exec(
        Program(called(executable, args), executable, args, argc, " ".join(args), directory),
        [Link._make(link) for link in _ANCESTOR.iter_unpack(body[LAYOUT.size : at_executable])],
        (_STREAMS[stdin], _STREAMS[stdout], _STREAMS[stderr]),
        truncated,
    )


def _is_runtime(program: Program) -> bool:
    executable = program.executable
    file = executable[1:] if executable.startswith("/memfd:") else executable.rpartition("/")[2]
    return file in _RUNTIMES and program.args[1:2] == ["init"]


def _from_inside(header: Header, chain: list[Link], processes: Processes) -> bool:
    """Whether a program of this very container is above it: no runtime is started by the container it sets up."""
    above = (processes.find(link.pid, link.start_ns) for link in chain)
    return any(known is not None and known.container == header.container for known in above)
