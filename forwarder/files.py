"""Small files that are replaced as a whole, on a full disk too."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_BLOCK_BYTES = 4096


def replace(path: Path, data: bytes, *, sync: bool) -> None:
    """Puts `data`, which is JSON, in place of the file. The old or the new one is there after kill -9, with `sync`
    after a power cut.

    On a full disk it is written over the old one, where it fits: then a power cut in between may damage it.
    """
    data = data.ljust(-(-len(data) // _BLOCK_BYTES) * _BLOCK_BYTES)  # a whole block, so that the next one fits as well
    beside = path.with_name(path.name + ".tmp")
    try:
        _write(beside, data, os.O_TRUNC | os.O_CREAT, sync)
        os.replace(beside, path)
        if sync:
            sync_directory(path.parent)
    except OSError as e:
        beside.unlink(missing_ok=True)
        if not is_full(e) or not path.exists() or path.stat().st_size < len(data):
            raise
        _write(path, data.ljust(path.stat().st_size), 0, sync)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_full(error: OSError) -> bool:
    """The disk, or our share of it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _write(path: Path, data: bytes, flags: int, sync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
