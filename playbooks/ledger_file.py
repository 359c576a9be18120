"""Opens the ledger's file: one process at a time, tables up to date. Knows no record."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from playbooks.migrations import MIGRATIONS
from tocsin.errors import TocsinError


def connect(file: Path) -> sqlite3.Connection:
    """A connection whose commits are on disk when they return. Share it between threads under a lock of your own."""
    # isolation_level None: transactions are begun and ended here, not by the module's guess.
    db = sqlite3.connect(file, timeout=10, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def migrate(db: sqlite3.Connection, file: Path) -> None:
    """Makes the tables, or brings them up to date."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise TocsinError(f"{file} was written by a newer Tocsin (format {version}, this one knows {len(MIGRATIONS)})")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


def hold(file: Path) -> int:
    """Holds the ledger for this process; the kernel lets go of it however the process ends."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(handle)
        raise TocsinError(f"{file.parent} is in use by another Tocsin; stop it, or set another state_dir") from e
    return handle
