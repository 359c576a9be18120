"""The audit's chain: each row holds the hash of the one before it. Owns the hash, the file audit.log and the check.

The ledger's table is the original; audit.log is its copy, one JSON object a line, for people and collectors. Whoever
changes, removes or inserts a row in one of them breaks the chain or makes the two differ. Whoever can write both can
forge both: ship audit.log elsewhere if that matters.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from playbooks.records import AuditRow
from tocsin.errors import Problem, TocsinError

log = logging.getLogger(__name__)

GENESIS = "0" * 64
"""`previous` of the first row."""

_encode = msgspec.json.Encoder().encode


def row(last: AuditRow | None, at_ns: int, kind: str, body: dict[str, object]) -> AuditRow:
    """The row that follows `last`."""
    seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
    text = _encode(body).decode()
    return AuditRow(
        seq=seq, at_ns=at_ns, kind=kind, body=text, previous=previous, hash=_hash(seq, at_ns, kind, text, previous)
    )


def _hash(seq: int, at_ns: int, kind: str, body: str, previous: str) -> str:
    return hashlib.sha256(_encode([seq, at_ns, kind, body, previous])).hexdigest()


def broken(rows: Iterable[AuditRow], name: str) -> Iterator[Problem]:
    """Every place where the chain does not hold; `name` says what is checked, the line is the row's number."""
    expected, previous = 1, GENESIS
    for r in rows:
        if r.seq != expected:
            yield Problem(name, r.seq, f"row {expected} is missing")
        elif r.previous != previous:
            yield Problem(name, r.seq, "does not follow the row before it")
        if r.hash != _hash(r.seq, r.at_ns, r.kind, r.body, r.previous):
            yield Problem(name, r.seq, "was changed after it was written")
        expected, previous = r.seq + 1, r.hash


def read(file: Path) -> Iterator[AuditRow]:
    """The rows of an audit.log, without a last line that was cut by a crash. TocsinError where a line is no row."""
    if not file.exists():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):
                try:
                    yield msgspec.json.decode(line, type=AuditRow)
                except (msgspec.DecodeError, UnicodeDecodeError) as e:
                    raise TocsinError(f"{file}:{number}: was changed after it was written: it is no row: {e}") from e


def differences(ledger: Iterable[AuditRow], written: Iterable[AuditRow], name: str) -> Iterator[Problem]:
    """Rows of the file `name` that the ledger does not have so. A file that ends early is only not yet written.

    While the playbooks run, read the file first: the ledger is ahead of it, never behind.
    """
    known = {r.seq: r.hash for r in ledger}
    for r in written:
        if known.get(r.seq) != r.hash:
            yield Problem(name, r.seq, "is not what the ledger holds")


class AuditFile:
    """Appends rows to audit.log. Not safe between threads; one writer per file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.last_seq = self._mend()

    def append(self, rows: Iterable[AuditRow]) -> None:
        """Rows up to `last_seq` are there already and are left out. In the page cache when it returns.

        Nothing of it is written when it raises OSError: half a row, on a full disk, would make the next one unreadable.
        """
        fresh = [r for r in rows if r.seq > self.last_seq]
        if not fresh:
            return
        with self._file.open("ab", buffering=0) as out:
            end = out.seek(0, os.SEEK_END)
            lines = b"".join(_encode(r) + b"\n" for r in fresh)
            try:
                if (written := out.write(lines)) < len(lines):
                    raise OSError(errno.ENOSPC, f"{written} of {len(lines)} bytes were written to {self._file.name}")
            except OSError:
                out.truncate(end)
                raise
        self.last_seq = fresh[-1].seq

    def _mend(self) -> int:
        """Cuts a torn last line off; the number of the last whole row.

        A file that ends in something else is put aside and written anew: it is a copy, and must not keep us from
        starting.
        """
        try:
            if self._file.exists():
                return self._cut()
        except (msgspec.DecodeError, UnicodeDecodeError):
            aside = self._file.with_name(f"{self._file.name}.damaged-{time.time_ns()}")
            self._file.rename(aside)
            log.error("%s ends in what is no row of the audit: kept as %s, written anew", self._file, aside.name)
        self._file.touch(mode=0o640)
        return 0

    def _cut(self) -> int:
        last = 0
        with self._file.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            tail_from = max(0, end - 1024 * 1024)
            file.seek(tail_from)
            tail = file.read()
            whole = tail[: tail.rfind(b"\n") + 1]
            file.truncate(tail_from + len(whole))
            if lines := whole.splitlines():
                last = msgspec.json.decode(lines[-1], type=AuditRow).seq
        return last
