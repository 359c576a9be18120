"""Evidence on disk: complete or not there at all, readable by its owner only, and provably unchanged since.

root/<run>/<step>/ holds the files and `manifest.json`, with the sha256 of each. Owns writing, checking and the bound on
all of it; what goes in is the action's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

MANIFEST = "manifest.json"

_pruning = threading.Lock()


class Part(msgspec.Struct, frozen=True):
    """One file of evidence, or the reason why there is none."""

    name: str
    content: bytes = b""
    cut: bool = False
    """There was more than the bound allows."""
    error: str | None = None


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part in the manifest."""

    name: str
    size_bytes: int = 0
    sha256: str | None = None
    cut: bool = False
    error: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    about: dict[str, Any]
    parts: list[Entry]


def save(target: Path, about: Mapping[str, Any], parts: Iterable[Part]) -> Manifest:
    """Writes all parts and the manifest, then lets `target` appear, on disk, in one rename. Raises OSError.

    What an earlier, interrupted attempt left is replaced. `target` itself must not exist.
    """
    half = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700)
    manifest = Manifest(dict(about), [_write(half, part) for part in parts])
    _create(half / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    _sync(half)
    half.rename(target)
    _sync(target.parent)
    return manifest


def check(target: Path) -> list[str]:
    """Reads everything again: what is missing, changed or added since it was saved, one sentence each."""
    try:
        manifest = msgspec.json.decode((target / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as e:
        return [f"{MANIFEST} cannot be read: {e}"]
    expected = {entry.name: entry.sha256 for entry in manifest.parts if entry.sha256}
    found = {path.name for path in target.iterdir()} - {MANIFEST}
    return [
        *(f"{name} is missing" for name in sorted(expected.keys() - found)),
        *(f"{name} was added" for name in sorted(found - expected.keys())),
        *(f"{name} was changed" for name in sorted(expected.keys() & found) if _hash(target / name) != expected[name]),
    ]


def prune(root: Path, limit_bytes: int, keep: str) -> list[str]:
    """Removes the evidence of the oldest runs until all of it fits; never that of run `keep`. Returns the runs."""
    with _pruning:
        return _prune(root, limit_bytes, keep)


def _prune(root: Path, limit_bytes: int, keep: str) -> list[str]:
    runs = sorted((path.stat().st_mtime_ns, path) for path in root.iterdir() if path.is_dir())
    sizes = {path: sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()) for _, path in runs}
    total, removed = sum(sizes.values()), []
    for _, path in runs:
        if total <= limit_bytes:
            break
        if path.name != keep:
            shutil.rmtree(path)
            total -= sizes[path]
            removed.append(path.name)
    return removed


def _write(directory: Path, part: Part) -> Entry:
    if part.error is not None:
        return Entry(part.name, error=part.error)
    _create(directory / part.name, part.content)
    return Entry(part.name, len(part.content), hashlib.sha256(part.content).hexdigest(), part.cut)


def _create(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
