"""What is known of the processes of containers: who started whom, as what. Bounded; owned by the pipeline thread."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from ecs_mappings.event import Ancestor, CharDevice, ParentProcess, Process, ProcessDetail, Tty
from sensor.program import Program, called
from sensor.record import Header, name

TICK_NS = 10_000_000
"""A process is told apart by its pid and its start in clock ticks: what the kernel and /proc/<pid>/stat both know."""

MAX_LIVE = 32_768
MAX_ENDED = 4_096
MAX_BYTES = 128 * 1024 * 1024
"""Of all texts that are kept, about: long ones are the attacker's choice."""
MAX_ANCESTORS = 32

Key = tuple[int, int]


class Link(NamedTuple):
    """One step up the chain of parents, as the kernel saw it."""

    start_ns: int
    pid: int
    same_cgroup: int


@dataclass(slots=True)
class Known:
    """One process since its last exec. Texts are at most KEPT_TEXT long; `cut` names those that were longer."""

    entity_id: str
    container: bytes
    name: str
    executable: str
    args: list[str]
    args_count: int
    command_line: str
    working_directory: str
    cut: tuple[str, ...]
    parent: ParentProcess
    ancestors: list[Ancestor]
    as_ancestor: Ancestor
    as_parent: ParentProcess

    @property
    def size(self) -> int:
        """Bytes it takes, about: the command line is there as text and as arguments."""
        text = 2 * sys.getsizeof(self.command_line) + sys.getsizeof(self.executable)
        return 1024 + text + sys.getsizeof(self.working_directory) + 64 * len(self.args)


class Processes:
    """Ended processes are remembered a while longer: their children's records may come after them."""

    def __init__(
        self, boot_id: str, max_live: int = MAX_LIVE, max_ended: int = MAX_ENDED, max_bytes: int = MAX_BYTES
    ) -> None:
        self._boot_id = boot_id.encode()
        self._max_live = max_live
        self._max_ended = max_ended
        self._max_bytes = max_bytes
        self._bytes = 0
        self._live: OrderedDict[Key, Known] = OrderedDict()
        self._ended: OrderedDict[Key, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def entity_id(self, pid: int, start_ns: int) -> str:
        """hash(boot id, pid, start): the same from every record of the process, and after a restart of the sensor."""
        return blake2b(b"%s %d %d" % (self._boot_id, pid, start_ns // TICK_NS), digest_size=12).hexdigest()

    def find(self, pid: int, start_ns: int) -> Known | None:
        key = (pid, start_ns // TICK_NS)
        return self._live.get(key) or self._ended.get(key)

    def executed(
        self, pid: int, start_ns: int, start: datetime, container: bytes, program: Program, parent: ParentProcess,
        ancestors: list[Ancestor],
    ) -> Known:  # fmt: skip
        """Remembers what the process has become; the oldest process is forgotten when there are too many."""
        entity_id = self.entity_id(pid, start_ns)
        kept, cut = program.kept()
        known = Known(
            entity_id, container, kept.name, kept.executable, kept.args, kept.args_count, kept.command_line,
            kept.working_directory, cut, parent, ancestors,
            Ancestor(name=kept.name, executable=kept.executable, entity_id=entity_id),
            ParentProcess(
                pid=pid, entity_id=entity_id, name=kept.name, executable=kept.executable,
                command_line=kept.command_line, args=kept.args, args_count=kept.args_count, start=start,
            ),
        )  # fmt: skip
        key = (pid, start_ns // TICK_NS)
        before = self._live.pop(key, None)
        self._live[key] = known
        self._bytes += known.size - (before.size if before is not None else 0)
        self._make_room()
        return known

    def ended(self, pid: int, start_ns: int) -> None:
        key = (pid, start_ns // TICK_NS)
        known = self._live.pop(key, None)
        if known is not None:
            replaced = self._ended.pop(key, None)
            self._bytes -= replaced.size if replaced is not None else 0
            self._ended[key] = known
            self._make_room()

    def _make_room(self) -> None:
        """Forgets the oldest where there are too many; for want of bytes those that ended first."""
        while len(self._ended) > self._max_ended or (self._ended and self._bytes > self._max_bytes):
            self._bytes -= self._ended.popitem(last=False)[1].size
        while len(self._live) > self._max_live or (len(self._live) > 1 and self._bytes > self._max_bytes):
            self._bytes -= self._live.popitem(last=False)[1].size

    def parent(self, header: Header, start: datetime) -> tuple[ParentProcess, tuple[str, ...]]:
        """The parent as its exec showed it, or only what the header has; and the fields of it that are cut."""
        known = self.find(header.ppid, header.parent_start_ns)
        if known is not None:
            return known.as_parent, tuple(f"process.parent{x.removeprefix('process')}" for x in known.cut)
        return ParentProcess(
            pid=header.ppid,
            entity_id=self.entity_id(header.ppid, header.parent_start_ns),
            name=name(header.parent_comm),
            start=start,
        ), ()

    def ancestors(self, container: bytes, chain: Iterable[Link]) -> list[Ancestor]:
        """The chain, parent first, as far as it stays in the container.

        A process that only forked runs what the next one above it runs: it gets that one's name.
        """
        found: list[Ancestor] = []
        nameless: list[str] = []
        for link in chain:
            known = self.find(link.pid, link.start_ns)
            if known is not None and known.container == container:
                found += [_like(known, entity_id) for entity_id in nameless]
                nameless.clear()
                found.append(known.as_ancestor)
            elif link.same_cgroup and container[0]:
                nameless.append(self.entity_id(link.pid, link.start_ns))
            else:
                break
        return (found + [Ancestor(entity_id=entity_id) for entity_id in nameless])[:MAX_ANCESTORS]

    def runs(self, header: Header, executable: str) -> Known | None:
        """What the process runs: its own exec, or its parent's where it only forked and `executable` agrees."""
        known = self.find(header.pid, header.start_ns)
        if known is not None:
            return known
        above = self.find(header.ppid, header.parent_start_ns)
        if above is None or above.container != header.container or executable not in ("", above.executable):
            return None
        entity_id = self.entity_id(header.pid, header.start_ns)
        return Known(
            entity_id, above.container, above.name, above.executable, above.args, above.args_count,
            above.command_line, above.working_directory, above.cut, above.as_parent,
            [above.as_ancestor, *above.ancestors][:MAX_ANCESTORS], _like(above, entity_id), above.as_parent,
        )  # fmt: skip

    def describe(
        self, header: Header, executable: str, start: datetime, parent_start: datetime
    ) -> tuple[Process, ProcessDetail, tuple[str, ...]]:
        """The process of a record that is not an exec; the third part names the fields that are cut.

        `executable` is what the kernel says of it now, or "". The parent is the one that started it, also when that
        one is gone since.
        """
        known = self.runs(header, executable)
        if known is None:
            parent, cut = self.parent(header, parent_start)
            process = Process(
                pid=header.pid,
                vpid=header.vpid,
                entity_id=self.entity_id(header.pid, header.start_ns),
                name=called(executable, []) or name(header.comm),
                executable=executable or UNSET,
                interactive=interactive(header),
                tty=tty(header),
                start=start,
                parent=parent,
            )
            return process, ProcessDetail(tty=tty_name(header)), cut
        process = Process(
            pid=header.pid,
            vpid=header.vpid,
            entity_id=known.entity_id,
            name=known.name,
            executable=executable or known.executable,
            args=known.args,
            args_count=known.args_count,
            command_line=known.command_line,
            working_directory=known.working_directory,
            interactive=interactive(header),
            tty=tty(header),
            start=start,
            parent=known.parent,
        )
        return process, ProcessDetail(tty=tty_name(header), ancestors=known.ancestors or UNSET), known.cut


def interactive(header: Header) -> bool:
    """Whether there is a controlling terminal."""
    return header.tty[0] != 0


def tty(header: Header) -> Tty | UnsetType:
    if not header.tty[0]:
        return UNSET
    return Tty(char_device=CharDevice(major=header.tty_major, minor=header.tty_minor))


def tty_name(header: Header) -> str | UnsetType:
    return name(header.tty) if header.tty[0] else UNSET


def _like(known: Known, entity_id: str) -> Ancestor:
    return Ancestor(name=known.name, executable=known.executable, entity_id=entity_id)
