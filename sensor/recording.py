"""The file format of a recorded capture. Owns writing and reading it, nothing of what the frames mean.

"tocsin capture 1\\n", then blocks: length and crc32 of the body (two little-endian 32-bit words), then the body, a
zstandard frame. The first block is the Identity of the run as JSON. Every other holds entries: length of kind (8
bits), length of data (32), time taken (64, CLOCK_BOOTTIME), kind, data. A block of length 0 ends the file.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from sensor.assembler import Identity
from sensor.frames import Frame
from tocsin.errors import ConfigError, Problem

MAGIC = b"tocsin capture 1\n"
_BLOCK = struct.Struct("<II")
_ENTRY = struct.Struct("<BIQ")
_BLOCK_BYTES = 256 * 1024
MAX_BLOCK_BYTES = 16 * 1024 * 1024
"""Uncompressed; a block that claims more is not ours."""


class Writer:
    """A new recording. After a crash the file lacks its end mark: all whole blocks can still be read."""

    def __init__(self, path: Path, identity: Identity) -> None:
        """Raises ConfigError when the file exists or cannot be made: a recording is never overwritten."""
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as e:
            said = "is there already, and a recording overwrites nothing" if e.errno == errno.EEXIST else e.strerror
            raise ConfigError([Problem(str(path), 0, f"cannot be recorded to: {said}")]) from e
        self._file = os.fdopen(fd, "wb")
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._entries = bytearray()
        self._file.write(MAGIC)
        self._write(msgspec.json.encode(identity))

    def add(self, frame: Frame, now_ns: int) -> None:
        kind = frame.kind.encode()
        self._entries += _ENTRY.pack(len(kind), len(frame.data), now_ns)
        self._entries += kind
        self._entries += frame.data
        if len(self._entries) >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Puts what there is into the file, where a kill of this process cannot reach it."""
        if self._entries:
            self._write(bytes(self._entries))
            self._entries.clear()
        self._file.flush()

    def close(self) -> None:
        self.flush()
        self._file.write(_BLOCK.pack(0, 0))
        self._file.close()

    def _write(self, body: bytes) -> None:
        packed = self._compressor.compress(body)
        self._file.write(_BLOCK.pack(len(packed), zlib.crc32(packed)))
        self._file.write(packed)


class Reader:
    """Raises ConfigError naming file and position for anything that is not a whole recording."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decompressor = zstandard.ZstdDecompressor()
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as e:
            raise ConfigError([Problem(str(path), 0, f"cannot be read: {e.strerror}")]) from e
        try:
            self.identity = self._begin()
        except ConfigError:
            self._file.close()
            raise

    def _begin(self) -> Identity:
        if self._file.read(len(MAGIC)) != MAGIC:
            raise ConfigError([Problem(str(self._path), 0, "is no capture of this version of Tocsin (byte 0)")])
        first = self._block()
        if first is None:
            raise self._broken(len(MAGIC), "it ends before it begins")
        try:
            return msgspec.json.decode(first, type=Identity)
        except msgspec.MsgspecError as e:
            raise self._broken(len(MAGIC), str(e)) from e

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[tuple[Frame, int]]:
        """Every frame with the time it was taken. What comes before a fault is given before the error is raised."""
        while (block := self._block()) is not None:
            yield from self._entries_of(block)

    def _entries_of(self, block: bytes) -> Iterator[tuple[Frame, int]]:
        at = 0
        while at < len(block):
            try:
                kind_size, data_size, now_ns = _ENTRY.unpack_from(block, at)
                at += _ENTRY.size
                end = at + kind_size + data_size
                if end > len(block):
                    raise ValueError("an entry is longer than its block")
                yield Frame(block[at : at + kind_size].decode(), block[at + kind_size : end]), now_ns
            except (struct.error, ValueError) as e:
                raise self._broken(self._file.tell(), str(e)) from e
            at = end

    def _block(self) -> bytes | None:
        at = self._file.tell()
        head = self._file.read(_BLOCK.size)
        if len(head) < _BLOCK.size:
            raise self._broken(at, "it was cut off here")
        size, checksum = _BLOCK.unpack(head)
        if size == 0:
            return None
        packed = self._file.read(min(size, MAX_BLOCK_BYTES + 1))
        if len(packed) < size:
            raise self._broken(at, "it was cut off in this block")
        if zlib.crc32(packed) != checksum:
            raise self._broken(at, "the checksum of this block is wrong")
        try:
            if zstandard.frame_content_size(packed) > MAX_BLOCK_BYTES:
                raise self._broken(at, "this block is too large")
            return self._decompressor.decompress(packed, max_output_size=MAX_BLOCK_BYTES)
        except zstandard.ZstdError as e:
            raise self._broken(at, str(e)) from e

    def _broken(self, at: int, why: str) -> ConfigError:
        return ConfigError([Problem(str(self._path), 0, f"byte {at}: {why}")])
