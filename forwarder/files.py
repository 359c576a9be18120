"""Files that are replaced as a whole, never half."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, data: bytes, *, sync: bool) -> None:
    """Puts `data` in place of the file. The old or the new is there after kill -9, with `sync` after a power cut."""
    beside = path.with_name(path.name + ".tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(beside, path)
    if sync:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
