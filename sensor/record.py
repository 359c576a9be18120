"""The header every kernel record begins with, and how kernel bytes become text. Twin of bpf/common.h."""

from __future__ import annotations

import struct
from typing import NamedTuple

LAYOUT = struct.Struct("=IHHQQQIIIIIIII64s16s16s16s")

FLAG_DEEP = 1
FLAG_SETUP = 2

OFFSETS = (
    ("cgroup", "kn"),
    ("cred", "gid"),
    ("cred", "uid"),
    ("css_set", "dfl_cgrp"),
    ("dentry", "d_name"),
    ("dentry", "d_parent"),
    ("fdtable", "fd"),
    ("fdtable", "max_fds"),
    ("file", "f_inode"),
    ("file", "f_path"),
    ("file", "private_data"),
    ("files_struct", "fdt"),
    ("inode", "i_mode"),
    ("kernfs_iattrs", "ia_gid"),
    ("kernfs_iattrs", "ia_uid"),
    ("kernfs_node", "iattr"),
    ("kernfs_node", "mode"),
    ("kernfs_node", "name"),
    ("kernfs_node", "parent", "__parent"),  # renamed in 6.15
    ("mm_struct", "exe_file"),
    ("mnt_namespace", "ns"),
    ("mount", "mnt"),
    ("mount", "mnt_mountpoint"),
    ("mount", "mnt_parent"),
    ("ns_common", "inum"),
    ("nsproxy", "mnt_ns"),
    ("path", "dentry"),
    ("path", "mnt"),
    ("pid", "level"),
    ("pid", "numbers"),
    ("qstr", "name"),
    ("signal_struct", "tty"),
    ("sock_common", "skc_family"),
    ("socket", "sk"),
    ("task_struct", "cgroups"),
    ("task_struct", "comm"),
    ("task_struct", "cred"),
    ("task_struct", "files"),
    ("task_struct", "group_leader"),
    ("task_struct", "mm"),
    ("task_struct", "nsproxy"),
    ("task_struct", "real_parent"),
    ("task_struct", "signal"),
    ("task_struct", "start_boottime"),
    ("task_struct", "tgid"),
    ("task_struct", "thread_pid"),
    ("tty_driver", "major"),
    ("tty_driver", "minor_start"),
    ("tty_struct", "driver"),
    ("tty_struct", "index"),
    ("tty_struct", "name"),
    ("vfsmount", "mnt_root"),
)
"""What bpf/common.h reads: (struct, field, other names the field has had)."""


_CONTAINER_AT = struct.calcsize("=IHHQQQIIIIIIII")


class Malformed(Exception):
    """A record that does not fit its declared layout. It is counted and reported, never guessed at."""


class Header(NamedTuple):
    """Times are nanoseconds of CLOCK_BOOTTIME; `pid` is the kernel's tgid; `container` is 64 NULs outside any."""

    size: int
    probe: int
    flags: int
    time_ns: int
    start_ns: int
    parent_start_ns: int
    pid: int
    tid: int
    vpid: int
    ppid: int
    uid: int
    gid: int
    tty_major: int
    tty_minor: int
    container: bytes
    comm: bytes
    parent_comm: bytes
    tty: bytes


def header(data: bytes) -> Header:
    """Raises Malformed when `data` is shorter than a header or not as long as it says."""
    if len(data) < LAYOUT.size:
        raise Malformed(f"a record of {len(data)} bytes is shorter than its header")
    found = Header._make(LAYOUT.unpack_from(data))
    if found.size != len(data):
        raise Malformed(f"a record of {len(data)} bytes says it has {found.size}")
    return found


def container_bytes(data: bytes) -> bytes:
    """The container id field alone: what the hot path needs before anything else."""
    return data[_CONTAINER_AT : _CONTAINER_AT + 64]


def text(raw: bytes) -> str:
    r"""Kernel bytes as text: UTF-8; a byte that is not becomes \xNN (so a literal \xNN looks the same).

    Control characters stay: JSON escapes them, and whoever prints an event to a terminal must do so too.
    """
    return raw.decode("utf-8", "backslashreplace")


def name(raw: bytes) -> str:
    """Text of a fixed field up to its first NUL."""
    return text(raw.partition(b"\0")[0])


def path(parts: bytes) -> str:
    """The absolute path of bpf/common.h put_path: names innermost first, NUL-ended each."""
    names = parts.split(b"\0")
    names.reverse()
    return "/" + text(b"/".join(names[1:]))
