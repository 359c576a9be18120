"""Keeps the SQLite file small, away from the write path: removes what is too old or too much, folds the log in.

Its waits for the disk are its own: the writer never syncs.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

from store.sqlite_file import connect

CHECKPOINT_EVERY_S = 1.0
RETAIN_EVERY_S = 30.0
CHUNK = 500
"""Documents removed in one transaction: the writer waits some milliseconds for it at most."""

KEPT_LONGER = ("tocsin.alert", "tocsin.response")
"""What Tocsin judged and did outlives what it saw."""
KEPT_LONGER_FACTOR = 4

_log = logging.getLogger(__name__)


class Housekeeping:
    """One thread beside the writer. `start` once; `stop` waits for the transaction at hand."""

    def __init__(self, path: Path, retain_s: float, retain_bytes: int) -> None:
        self._path = path
        self._retain_s = retain_s
        self._retain_bytes = retain_bytes
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        db = connect(self._path)
        retain_at = 0.0
        try:
            while not self._stopping.wait(CHECKPOINT_EVERY_S):
                try:
                    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    if time.monotonic() >= retain_at:
                        self.retain(db, time.time())
                        retain_at = time.monotonic() + RETAIN_EVERY_S
                except sqlite3.DatabaseError as e:
                    _log.warning("store housekeeping: %s; tries again", e, extra={"event.action": "retain_failed"})
        finally:
            db.close()

    def retain(self, db: sqlite3.Connection, now_s: float) -> int:
        """Removes everything past its age or beyond the size, oldest first; returns how many documents."""
        cutoff = int((now_s - self._retain_s) * 1e6)
        kept_cutoff = int((now_s - self._retain_s * KEPT_LONGER_FACTOR) * 1e6)
        marks = ",".join("?" * len(KEPT_LONGER))
        ordinary = f"dataset NOT IN ({marks})"
        removed = self._remove_all(db, "age", f"{ordinary} AND at < ?", (*KEPT_LONGER, cutoff))
        removed += self._remove_all(db, "age", "at < ?", (kept_cutoff,))
        while self._too_big(db) and not self._stopping.is_set():
            count = _remove(db, "size", ordinary, KEPT_LONGER) or _remove(db, "size", "TRUE", ())
            if not count:
                break
            removed += count
        if removed:
            db.execute("PRAGMA incremental_vacuum").fetchall()
            _log.info("removed %d documents past their retention", removed, extra={"event.action": "retained"})
        return removed

    def _remove_all(self, db: sqlite3.Connection, reason: str, which: str, values: tuple[str | int, ...]) -> int:
        removed = 0
        while not self._stopping.is_set():
            count = _remove(db, reason, which, values)
            removed += count
            if count < CHUNK:
                break
        return removed

    def _too_big(self, db: sqlite3.Connection) -> bool:
        return used_bytes(db) > self._retain_bytes


def used_bytes(db: sqlite3.Connection) -> int:
    """Size of what the file holds, without the pages that are free to use again."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {p}").fetchone()[0]) for p in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _remove(db: sqlite3.Connection, reason: str, which: str, values: tuple[str | int, ...]) -> int:
    """Removes one chunk of the oldest rows for which `which` holds, and counts it, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        oldest = f"SELECT seq FROM event WHERE {which} ORDER BY at LIMIT {CHUNK}"
        count = db.execute(f"DELETE FROM event WHERE seq IN ({oldest})", values).rowcount
        db.execute("UPDATE counter SET value = value - ? WHERE name = 'documents'", (count,))
        db.execute("UPDATE counter SET value = value + ? WHERE name = ?", (count, f"removed_{reason}"))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return count
