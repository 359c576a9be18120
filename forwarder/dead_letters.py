"""Records that a receiver will never take, kept for people, with the reason. Owns one bounded NDJSON file per sink."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ecs_mappings.event import MAX_DOCUMENT_BYTES
from tocsin.errors import RetryLater

_MAX_REASON = 500
_RESEND_BATCH = 200


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the file."""

    at: datetime
    topic: str
    offset: int | None
    """Its place in the topic; None when it never got one."""
    reason: str
    line: str = ""
    line_base64: str = ""
    """Instead of `line`, where the record is not UTF-8."""
    cut_from_bytes: int = 0
    """The record's size, where it was too long to be kept whole. Such a letter is not sent again."""

    @classmethod
    def of(cls, topic: str, offset: int | None, reason: str, line: bytes) -> Letter:
        fields: dict[str, Any] = {"at": datetime.now(UTC), "topic": topic, "offset": offset}
        if len(line) > MAX_DOCUMENT_BYTES:
            fields["cut_from_bytes"] = len(line)
            line = line[:MAX_DOCUMENT_BYTES]
        try:
            fields["line"] = line.decode()
        except UnicodeDecodeError:
            fields["line_base64"] = base64.b64encode(line).decode()
        return cls(reason=reason[:_MAX_REASON], **fields)

    def record(self) -> bytes:
        return self.line.encode() or base64.b64decode(self.line_base64)


class DeadLetters:
    """The dead letters of one sink. Safe to share between threads.

    Two files of half the bound each; when the newer is full the older goes, and `on_drop(count)` is told.
    """

    def __init__(self, directory: Path, sink: str, max_bytes: int, on_drop: Callable[[int], None]) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._new = directory / f"{sink}.ndjson"
        self._old = directory / f"{sink}.1.ndjson"
        self._sending = directory / f"{sink}.sending.ndjson"
        self._max_bytes = max_bytes
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._resend_lock = threading.Lock()
        self.added = 0
        """Since this start."""
        self.last_reason = ""
        _cut_torn_line(self._new)
        self._counts = {path: sum(1 for _ in _lines(path)) for path in (self._new, self._old, self._sending)}

    @property
    def kept(self) -> int:
        """Letters in the files."""
        return sum(self._counts.values())

    def add(self, letters: Sequence[Letter]) -> None:
        """Keeps all of them, or none and raises RetryLater: what is in no file must stay where it is."""
        if not letters:
            return
        with self._lock:
            self._keep(letters)
            self.added += len(letters)
            self.last_reason = letters[-1].reason

    def resend(self, append: Callable[[str, Sequence[bytes]], object]) -> int:
        """Gives every whole letter to `append(topic, lines)` and forgets it; returns how many.

        After an error the rest, and perhaps some that were sent, are kept. Letters that were cut are kept.
        """
        with self._resend_lock:
            sent = 0
            for path in (self._sending, self._old, self._new):
                self._set_aside(path)
                sent += self._send(append)
            return sent

    def _set_aside(self, path: Path) -> None:
        """Renames `path`, so that new letters go elsewhere meanwhile; also finds what a crash left there."""
        with self._lock:
            if path != self._sending and path.exists():
                os.replace(path, self._sending)
                self._counts[self._sending], self._counts[path] = self._counts[path], 0

    def _send(self, append: Callable[[str, Sequence[bytes]], object]) -> int:
        sent, kept = 0, list[Letter]()
        for topic, letters in _runs(self._sending):
            whole = [letter for letter in letters if not letter.cut_from_bytes]
            kept += [letter for letter in letters if letter.cut_from_bytes]
            if whole:
                append(topic, [letter.record() for letter in whole])
                sent += len(whole)
        with self._lock:
            damaged = self._counts[self._sending] - sent - len(kept)
            if kept:
                self._keep(kept)
            self._sending.unlink(missing_ok=True)
            self._counts[self._sending] = 0
        if damaged:
            self._on_drop(damaged)
        return sent

    def _keep(self, letters: Sequence[Letter]) -> None:
        data = b"".join(msgspec.json.encode(letter) + b"\n" for letter in letters)
        try:
            self._rotate(len(data))
            _append(self._new, data)
        except OSError as e:
            raise RetryLater(f"dead letters cannot be written to {self._new}: {e.strerror}", 1.0) from e
        self._counts[self._new] += len(letters)

    def _rotate(self, size: int) -> None:
        present = self._new.stat().st_size if self._new.exists() else 0
        if not present or present + size <= self._max_bytes // 2:
            return
        dropped = self._counts[self._old]
        os.replace(self._new, self._old)
        self._counts[self._old], self._counts[self._new] = self._counts[self._new], 0
        if dropped:
            self._on_drop(dropped)


def _append(path: Path, data: bytes) -> None:
    """All of the data or, with OSError, nothing."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except OSError:
            os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file


def _runs(path: Path) -> Iterator[tuple[str, list[Letter]]]:
    """The letters of a file, in order, gathered by topic and into batches. Damaged lines are passed over."""
    decoder = msgspec.json.Decoder(Letter)
    run: list[Letter] = []
    for line in _lines(path):
        try:
            letter = decoder.decode(line)
        except msgspec.MsgspecError:
            continue
        if run and (letter.topic != run[0].topic or len(run) == _RESEND_BATCH):
            yield run[0].topic, run
            run = []
        run.append(letter)
    if run:
        yield run[0].topic, run


def _cut_torn_line(path: Path) -> None:
    """A crash may have left half a line at the end."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = 0
        for line in file:
            end += len(line) if line.endswith(b"\n") else 0
        file.truncate(end)
